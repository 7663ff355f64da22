"""Crafting: which probes there are to make, each chunk an artifact named by a hash of all that it depends on."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Images, Task, Trained, to_unit
from toolkit.audit.artifacts import decode_learned, decode_probes, encode_learned, read_artifact
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet
from toolkit.files import sha256, write_bytes
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Decision

# Pairs in one artifact: the unit of progress, of work, and of what an interrupt can lose.
CHUNK = 32
# Photographs that an attack is trained on.
LEARNED_FROM = 64


@dataclass(frozen=True)
class Chunk:
    """Some consecutive pairs of a crop set and the probes crafted for them."""

    rows: NDArray[np.intp]
    crafted: Crafted


@dataclass(frozen=True)
class Series:
    """All probes of one attack against one profile.

    Attributes:
        attack: the attack.
        known: the profile that the attacker knows.
        attacker_model: hash of the attacked model's file or checkpoint.
        crops: the pairs.
        decision: metric and threshold.
        seed: of the whole audit; each pair draws from its own stream.
        folder: where the artifacts are.
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
        """In words."""
        return f"{self.attack.name} on {self.known.name}"

    def chunks(self) -> Iterator[tuple[NDArray[np.intp], Path]]:
        """The rows of each chunk and the file of its probes."""
        learned = self.learned_path().name if isinstance(self.attack, Trained) else None
        for start in range(0, len(self.crops.pairs), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(self.crops.pairs)))
            yield rows, self.folder / f"{self._key(rows, learned)}.probes"

    def learned_path(self) -> Path:
        """The file of what a trained attack learned, which depends on all pairs."""
        return self.folder / f"{self._key(np.arange(len(self.crops.pairs)), None)}.learned"

    def clean(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """The probes of some pairs as they are."""
        return self.crops.images[self.crops.index[rows, 0]]

    def _key(self, rows: NDArray[np.intp], learned: str | None) -> str:
        pixels = hashlib.sha256()
        for block in np.array_split(rows, -(-len(rows) // CHUNK)):
            pixels.update(self.crops.images[self.crops.index[block]].tobytes())
        content = {
            "attack": self.attack.name,
            "parameters": attack_parameters(self.attack),
            "code": attack_code(type(self.attack).__module__),
            "known": [[repr(d), getattr(d, "sha256", "")] for d in (*self.known.defenses, *self.known.squeezers)],
            "around": [self.known.draws, repr(self.known.detector)],
            "model": self.attacker_model,
            "decision": asdict(self.decision),
            "seed": self.seed,
            "pairs": [self.crops.pairs[row].id for row in rows],
            "images": pixels.hexdigest(),
            "learned": learned,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def read_crafted(series: Series) -> Iterator[Chunk]:
    """The probes that are there; chunks that are missing or damaged are left out."""
    for rows, path in series.chunks():
        crafted = decode_probes(read_artifact(path), series.clean(rows))
        if crafted is not None:
            yield Chunk(rows, crafted)


def learn(series: Series, model: Any, alarm: float) -> Images | InputError:
    """The perturbations (2, H, W, 3) of a trained attack for the two halves of the people, from its artifact or anew.

    Each is learned from probes of the other half. An error says why nothing can be learned.
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
            raise InputError(f"{attack.name}: there are too few people to train it on some and attack others")
        generator = pair_generator(series.seed, attack.name, f"half {half}")
        probes = to_unit(crops.images[generator.permutation(places)[:LEARNED_FROM]])
        everyone = np.ones(len(probes), np.bool_)
        own = Task(probes, model.embed(probes), everyone, series.decision, (generator,) * len(probes), alarm=alarm)
        learned.append(attack.train(model, own))  # type: ignore[attr-defined]
    return np.stack(learned)


def people_halves(crops: CropSet) -> NDArray[np.intp]:
    """To which half of the people, 0 or 1, each pair's probe belongs; where nobody is named, each photograph is one."""
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
    """The pairs `rows` of a crop set with their references' embeddings (M, D); random numbers as drawn by `attack`."""
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


def attack_parameters(attack: Attack) -> dict[str, object]:
    """The attack's parameters by name; a file is a tuple of its path and its hash."""
    values = asdict(attack)  # type: ignore[call-overload]
    return {k: (str(v), sha256(v)) if isinstance(v, Path) else v for k, v in values.items()}


@cache
def attack_code(module: str) -> str:
    """Hash of an attack's source and of all that it imports from the folder of attacks.

    An attack that was mended makes its probes anew.
    """
    files: dict[str, str] = {}
    waiting = [module, "toolkit.attacks.base"]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name not in files and file is not None:
            files[name], imported = _source(file, Path(file).stat().st_mtime_ns)
            waiting += imported
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(bytes.fromhex(files[name]))
    return digest.hexdigest()


@cache
def _source(file: str, _changed: int) -> tuple[str, tuple[str, ...]]:
    """The hash of a module's source, and what it imports from the folder of attacks, modules or names in them.

    `_changed`, when the file was last written, has a file that was mended read anew.
    """
    source = Path(file).read_bytes()
    froms = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in froms if (node.module or "").startswith("toolkit.attacks")]
    imported = [name for node in ours for name in (node.module, *(f"{node.module}.{a.name}" for a in node.names))]
    return hashlib.sha256(source).hexdigest(), tuple(map(str, imported))


def pair_generator(seed: int, attack: str, pair_id: str) -> np.random.Generator:
    """The stream of random numbers of one pair in one attack."""
    digest = hashlib.sha256(f"{seed}/{attack}/{pair_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
