"""Crafting: adversarial probes as artifacts, named by a hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Gradients, Images, Task, Trained, to_unit
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet
from toolkit.files import atomic_write, sha256
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Decision

# Pairs in one artifact: the unit of progress and of what an interrupt can lose.
CHUNK = 32
# Photographs that an attack is trained on.
_LEARNED_FROM = 64


@dataclass(frozen=True)
class Chunk:
    """Some consecutive pairs of a crop set and the probes crafted for them."""

    rows: NDArray[np.intp]
    crafted: Crafted


def craft(
    attack: Attack,
    known: Profile,
    model: Callable[[], Any],
    attacker_model: str,
    crops: CropSet,
    references: NDArray[np.float32],
    decision: Decision,
    seed: int,
    folder: Path,
    progress: Callable[[int], None],
    alarm: float = np.inf,
) -> Iterator[Chunk]:
    """Craft probes for all pairs, chunk by chunk; chunks already in `folder` are read instead.

    Args:
        attack: the attack.
        known: the profile that the attacker knows, part of the artifacts' names.
        model: gives the attacked model, with gradients if the attack needs them; called only to craft.
        attacker_model: hash of the attacked model's file or checkpoint, part of the artifacts' names.
        crops: the pairs.
        references: (n, D), the embedding of each pair's reference by the attacked model.
        decision: metric and threshold.
        seed: of the whole audit; each pair draws from its own stream.
        folder: where the artifacts are.
        progress: called with the number of pairs done.
        alarm: the attack score above which the attacked model flags a probe.
    """
    learned: Images | None = None
    for rows, path in _artifacts(attack, known, attacker_model, crops, decision, seed, folder):
        crafted = _read(path, crops.images[crops.index[rows, 0]])
        if crafted is None:
            task = make_task(attack.name, crops, rows, references[rows], decision, seed, alarm)
            if isinstance(attack, Trained):
                learned = _learn(attack, model(), crops, decision, seed, alarm) if learned is None else learned
                task = replace(task, universal=learned[_halves(crops)[rows]])
            crafted = attack.craft(model(), task)
            _write(path, crafted)
        progress(len(rows))
        yield Chunk(rows, crafted)


def _learn(attack: Trained, model: Gradients, crops: CropSet, decision: Decision, seed: int, alarm: float) -> Images:
    """The perturbations (2, H, W, 3) for the two halves of the people, each learned from probes of the other half.

    Raises:
        InputError: a half is empty.
    """
    halves, learned = _halves(crops), []
    for half in (0, 1):
        places = np.unique(crops.index[halves != half, 0])
        if not len(places) or not (halves == half).any():
            raise InputError(f"{attack.name}: there are too few people to train it on some and attack others")
        generator = _generator(seed, attack.name, f"half {half}")
        probes = to_unit(crops.images[generator.permutation(places)[:_LEARNED_FROM]])
        everyone = np.ones(len(probes), np.bool_)
        own = Task(probes, model.embed(probes), everyone, decision, (generator,) * len(probes), alarm=alarm)
        learned.append(attack.train(model, own))
    return np.stack(learned)


def _halves(crops: CropSet) -> NDArray[np.intp]:
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
        tuple(_generator(seed, attack, crops.pairs[row].id) for row in rows),
        to_unit(crops.images[crops.index[rows, 1]]),
        alarm,
        None if crops.template is None else np.array(crops.template),
    )


def read_crafted(
    attack: Attack, known: Profile, attacker_model: str, crops: CropSet, decision: Decision, seed: int, folder: Path
) -> list[Chunk]:
    """What `craft` left in `folder`; chunks that are missing or damaged are left out. Arguments as there."""
    return [
        Chunk(rows, crafted)
        for rows, path in _artifacts(attack, known, attacker_model, crops, decision, seed, folder)
        if (crafted := _read(path, crops.images[crops.index[rows, 0]])) is not None
    ]


def _artifacts(
    attack: Attack, known: Profile, attacker_model: str, crops: CropSet, decision: Decision, seed: int, folder: Path
) -> Iterator[tuple[NDArray[np.intp], Path]]:
    """The rows of each chunk and the file of its probes."""
    for start in range(0, len(crops.pairs), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(crops.pairs)))
        ids = [crops.pairs[row].id for row in rows]
        # What is learned from some of the pairs depends on all of them.
        images = crops.images[crops.index if isinstance(attack, Trained) else crops.index[rows]]
        key = _key(attack, known, attacker_model, decision, seed, ids, images)
        yield rows, folder / f"{key}.npz"


def attack_parameters(attack: Attack) -> dict[str, object]:
    """The attack's parameters by name; a file is a tuple of its path and its hash."""
    values = asdict(attack)  # type: ignore[call-overload]
    return {k: (str(v), sha256(v)) if isinstance(v, Path) else v for k, v in values.items()}


def _key(
    attack: Attack,
    known: Profile,
    attacker_model: str,
    decision: Decision,
    seed: int,
    ids: list[str],
    images: NDArray[np.uint8],
) -> str:
    content = {
        "attack": attack.name,
        "parameters": attack_parameters(attack),
        "known": [[repr(d), getattr(d, "sha256", "")] for d in (*known.defenses, *known.squeezers)],
        "around": [known.draws, repr(known.detector)],
        "model": attacker_model,
        "decision": asdict(decision),
        "seed": seed,
        "pairs": ids,
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _generator(seed: int, attack: str, pair_id: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{attack}/{pair_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _write(path: Path, crafted: Crafted) -> None:
    content = {field.name: getattr(crafted, field.name) for field in fields(crafted)}
    with atomic_write(path) as stream:
        np.savez_compressed(stream, **content, checksum=np.frombuffer(_checksum(crafted), np.uint8))


def _read(path: Path, clean: NDArray[np.uint8]) -> Crafted | None:
    """The artifact, or None where there is none or it is damaged, so that it is made anew."""
    try:
        with np.load(path, allow_pickle=False) as file:
            crafted = Crafted(**{field.name: file[field.name] for field in fields(Crafted)})
            checksum = file["checksum"].tobytes()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if checksum != _checksum(crafted) or crafted.probes8.shape != clean.shape:
        return None
    return crafted


def _checksum(crafted: Crafted) -> bytes:
    digest = hashlib.sha256()
    for field in fields(crafted):
        digest.update(np.ascontiguousarray(getattr(crafted, field.name)).tobytes())
    return digest.digest()
