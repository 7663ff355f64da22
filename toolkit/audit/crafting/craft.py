"""Crafting: divides probes into chunks. Each chunk is a file, named by a hash of everything that it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Task, is_trained
from toolkit.audit.crafting.artifacts import artifact_name, decode_learned, decode_probes, encode_learned, read_artifact
from toolkit.audit.crafting.code import attack_code, defense_code
from toolkit.defenses.base import file_hash
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet
from toolkit.files import sha256, sha256_of, write_bytes
from toolkit.pixels import Images, to_unit
from toolkit.profiles.profile import Profile
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
        learned = self.learned_path().name if is_trained(self.attack) else None
        for start in range(0, len(self.crops.pairs), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(self.crops.pairs)))
            yield rows, self.folder / f"{self._key(rows, learned)}.probes"

    def learned_path(self) -> Path:
        """The file of the perturbations that a trained attack learned. They depend on all pairs."""
        return self.folder / f"{self._key(np.arange(len(self.crops.pairs)), None)}.learned"

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


def learn(series: Series, model: Any, alarm: float) -> Images | InputError:
    """Read the perturbations of a trained attack from its artifact, or train it.

    Args:
        series: the series.
        model: the attacked model, with gradients.
        alarm: the detector's threshold; infinite without a detector.

    Returns:
        (2, H, W, 3) float32: one perturbation for each half of the people, learned from the other half. An InputError
        if the attack cannot be trained.
    """
    path, shape = series.learned_path(), (2, *series.crops.images.shape[1:])
    learned = decode_learned(read_artifact(path), shape)
    if learned is None:
        try:
            learned = _learn(series, model, alarm)
        except InputError as error:
            return error
        write_bytes(path, encode_learned(learned))
    return learned


def _learn(series: Series, model: Any, alarm: float) -> Images:
    attack, crops = series.attack, series.crops
    halves, learned = people_halves(crops), []
    for half in (0, 1):
        places = np.unique(crops.index[halves != half, 0])
        if not len(places) or not (halves == half).any():
            raise InputError(
                f"{attack.name}: too few people, because it trains on some and attacks others; give more pairs"
            )
        generator = pair_generator(series.seed, attack.name, f"half {half}")
        probes = to_unit(crops.images[generator.permutation(places)[:LEARNED_FROM]])
        everyone = np.ones(len(probes), np.bool_)
        own = Task(probes, model.embed(probes), everyone, series.decision, (generator,) * len(probes), alarm=alarm)
        learned.append(attack.train(model, own))  # type: ignore[attr-defined]
    return np.stack(learned)


def people_halves(crops: CropSet) -> NDArray[np.intp]:
    """Split people into two halves: the half, 0 or 1, of each pair's probe (n,).

    If the pairs do not name people, each photo counts as a person.
    """
    people = [pair.probe_identity or pair.probe for pair in crops.pairs]
    return np.array([hashlib.sha256(person.encode()).digest()[0] % 2 for person in people], np.intp)


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
