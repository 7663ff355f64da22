"""Crafting: divides probes into chunks. Each chunk is a file, named by a hash of everything that it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Task, is_trained
from toolkit.audit.crafting.artifacts import artifact_name, decode_probes, read_artifact
from toolkit.audit.crafting.code import attack_code, defense_code
from toolkit.defenses.base import file_hash
from toolkit.documents import from_plain
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet
from toolkit.files import check_sha256, sha256, sha256_of
from toolkit.pixels import to_unit
from toolkit.profiles.profile import Profile
from toolkit.registry import choose, discover
from toolkit.verifiers.manifest import Decision, Manifest
from toolkit.verifiers.onnx_file import verifier_sha256

# Pairs in one artifact. An interrupt loses at most the chunks in progress.
CHUNK = 32
# An attack is trained on at most this many photos.
LEARNED_FROM = 64


@dataclass(frozen=True)
class Chunk:
    """Consecutive pairs of a crop set, by their rows, and the probes crafted for them."""

    rows: NDArray[np.intp]
    crafted: Crafted


@dataclass(frozen=True)
class Series:
    """All probes of one attack against one profile.

    Attributes:
        attack: the attack.
        known: the profile that the attacker knows.
        attacker_model: see `attacked_model`.
        crops: the pairs.
        decision: metric and threshold.
        seed: seed of the whole audit; each pair has its own stream of random numbers.
        folder: folder of the artifacts.
    """

    attack: Attack
    known: Profile
    attacker_model: str
    crops: CropSet
    decision: Decision
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """The series in words."""
        return f"{self.attack.name} on {self.known.name}"

    def chunks(self) -> Iterator[tuple[NDArray[np.intp], Path]]:
        """Yield the rows of each chunk, and the file of its probes."""
        learned = self.learned_name if is_trained(self.attack) else None
        for start in range(0, len(self.crops.pairs), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(self.crops.pairs)))
            yield rows, self.folder / f"{self._key(rows, learned)}.probes"

    @cached_property
    def learned_name(self) -> str:
        """A name of what a trained attack learns. It is a hash of all crops."""
        return self._key(np.arange(len(self.crops.pairs)), None)

    def clean(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """The clean probes (m, H, W, 3) of the pairs `rows`."""
        return self.crops.images[self.crops.index[rows, 0]]

    def _key(self, rows: NDArray[np.intp], learned: str | None) -> str:
        pixels = hashlib.sha256()
        for block in np.array_split(rows, -(-len(rows) // CHUNK)):
            pixels.update(self.crops.images[self.crops.index[block]].tobytes())
        around = (*self.known.defenses, *self.known.squeezers)
        content = {
            "attack": self.attack.name,
            "parameters": attack_parameters(self.attack),
            "code": attack_code(self.attack),
            "known": [[repr(d), defense_code(d), file_hash(d)] for d in around],
            "around": [self.known.draws, repr(self.known.detector), *(("blind",) if self.known.detector else ())],
            "model": self.attacker_model,
            "decision": asdict(self.decision),
            "seed": self.seed,
            "pairs": [self.crops.pairs[row].id for row in rows],
            "images": pixels.hexdigest(),
            "learned": learned,
        }
        return artifact_name(content)


def read_crafted(series: Series, chunks: Iterable[tuple[NDArray[np.intp], Path]] | None = None) -> Iterator[Chunk]:
    """Read the finished chunks of a series. Missing and damaged chunks are skipped.

    Args:
        series: the series.
        chunks: its chunks, if they are at hand: their names are hashes of all crops.
    """
    for rows, path in series.chunks() if chunks is None else chunks:
        crafted = decode_probes(read_artifact(path), series.clean(rows))
        if crafted is not None:
            yield Chunk(rows, crafted)


def make_task(
    attack: str,
    crops: CropSet,
    rows: NDArray[np.intp],
    references: NDArray[np.float32],
    decision: Decision,
    seed: int,
    alarm: float,
) -> Task:
    """Build the task to attack some pairs.

    Args:
        attack: name of the attack, for its random numbers.
        crops: the pairs.
        rows: (M,), the pairs to attack.
        references: (M, D) float32, embeddings of their references.
        decision: metric and threshold.
        seed: seed of the audit.
        alarm: the detector's threshold; infinite without a detector.
    """
    return Task(
        to_unit(crops.images[crops.index[rows, 0]]),
        references,
        np.array([crops.pairs[row].genuine for row in rows], np.bool_),
        decision,
        tuple(pair_generator(seed, attack, crops.pairs[row].id) for row in rows),
        to_unit(crops.images[crops.index[rows, 1]]),
        alarm,
        None if crops.template is None else np.array(crops.template),
    )


def attacked_model(manifest: Manifest, attack: Attack) -> str:
    """SHA-256 of the model file and of how it is read, preceded by that of a checkpoint whose gradients are used."""
    deployed = f"{verifier_sha256(manifest)}+{manifest.reading}"
    if attack.needs == "gradient" and manifest.checkpoint is not None and manifest.checkpoint.path.exists():
        return f"{sha256_of(manifest.checkpoint.path)}+{deployed}"
    return deployed


def attack_parameters(attack: Attack) -> dict[str, object]:
    """The attack's parameters by name. A file becomes a tuple of its path and its SHA-256."""
    values = asdict(attack)  # type: ignore[call-overload]
    return {k: (str(v), sha256(v)) if isinstance(v, Path) else v for k, v in values.items()}


def pair_generator(seed: int, attack: str, pair_id: str) -> np.random.Generator:
    """The random number generator of one pair in one attack."""
    digest = hashlib.sha256(f"{seed}/{attack}/{pair_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def same_attack(header: dict[str, Any]) -> Attack:
    """Find the attack of a job from another process: its name with its parameters (`attack`), and its `code`.

    Raises:
        InputError: the code of the attack differs here.
    """
    attack = attack_with(*header["attack"])
    if attack_code(attack) != header["code"]:
        raise InputError(
            f"{attack.name}: this worker and the audit have different code of this attack; install the same version"
        )
    return attack


def attack_with(name: str, parameters: dict[str, Any]) -> Attack:
    """Find a registered attack, and set its parameters from values that were read from JSON.

    Raises:
        UsageError: the attack does not exist.
        ValueError: the attack has other parameters.
    """
    attack = choose("attack", [name], discover("attack"))[0]
    known = {field.name for field in fields(attack)}
    if set(parameters) != known:
        raise ValueError(f"{name} has the parameters {sorted(known)}, not {sorted(parameters)}")
    kinds = get_type_hints(type(attack))
    values = {key: _parameter(kinds[key], value, f"{name}.{key}") for key, value in parameters.items()}
    return replace(attack, **{key: values[key] for key in known if getattr(attack, key) != values[key]})


def _parameter(kind: Any, value: Any, where: str) -> Any:
    if kind != Path | None:
        return from_plain(kind, value, where)
    return None if value is None else _file(*from_plain(tuple[str, str], value, where))


def _file(path: str, digest: str) -> Path:
    check_sha256(Path(path), digest)
    return Path(path)
