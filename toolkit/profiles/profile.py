"""Profiles: an ordered list of defenses, optionally with an ensemble and a detector, in a TOML file."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import (
    AnyDefense,
    Defense,
    GraphBuilder,
    apply_numpy,
    apply_onnx,
    apply_tensorflow,
    file_hash,
    is_random,
)
from toolkit.defenses.noise import Noise
from toolkit.defenses.randomness import spread, tensorflow_spread
from toolkit.errors import InputError, UsageError
from toolkit.files import bundled, inside, write_bytes
from toolkit.profiles.detector import Detector
from toolkit.profiles.vote import Vote
from toolkit.registry import choose, discover, unknown
from toolkit.tables import read_toml
from toolkit.text import LONGEST_NAME
from toolkit.verifiers.entropy import os_entropy
from toolkit.verifiers.hardened import MOST_DRAWS, VoteOutput
from toolkit.verifiers.manifest import Metric
from toolkit.verifiers.variants import attack_scores, drawn_apart, fold

SCHEMA_VERSION = 1
_KEYS = {"schema", "name", "description", "defense", "ensemble", "detector", "vote"}
# A float32 can represent every integer below this.
_LARGEST_WHOLE = 1 << 24
Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Profile:
    """An ordered list of defenses. The profile `none` has no defenses.

    Attributes:
        name: the name in reports.
        description: one sentence about the profile's purpose.
        defenses: the defenses, in the order in which they run.
        sha256: the hash of the file's text and of the files that defenses read.
        text: the text of the file.
        draws: with more than 1, the verifier runs on this many independent draws of every image, and its embeddings are
            averaged (`verifiers.variants.fold`).
        detector: compares embeddings before and after squeezing; None without a detector.
        vote: the draws vote instead of being averaged; None without a vote.
        source: the absolute path of the file; empty for a profile that was created in memory.
    """

    name: str
    description: str
    defenses: tuple[AnyDefense, ...]
    sha256: str
    text: str = ""
    draws: int = 1
    detector: Detector | None = None
    vote: Vote | None = None
    source: str = dataclasses.field(default="", compare=False)

    @property
    def empty(self) -> bool:
        """Whether the profile leaves the verifier unchanged."""
        return not self.defenses and self.detector is None

    @property
    def squeezers(self) -> tuple[Defense, ...]:
        """The detector's squeezers; empty without a detector."""
        return () if self.detector is None else self.detector.squeezers

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise that a certificate is about; 0 if the profile does not begin with it."""
        first = self.defenses[0] if self.defenses else None
        return first.sigma if isinstance(first, Noise) else 0.0

    @property
    def voting(self) -> VoteOutput | None:
        """The vote as the manifest of a hardened file describes it; None without a vote."""
        vote = self.vote
        return None if vote is None else VoteOutput(self.draws, self.sigma, vote.confidence, vote.threshold)

    @property
    def random(self) -> bool:
        """Whether any defense draws random numbers."""
        return any(is_random(defense) for defense in self.defenses)

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Apply all defenses in order, with NumPy.

        Args:
            crops: (N, H, W, 3) in [0, 1].
            entropy: (N,), the entropies for random defenses; None draws them from the operating system.

        Returns:
            Defended crops (draws * N, H, W, 3). Draw 1 of all crops comes first, then draw 2, and so on.
        """
        entropy = os_entropy(len(crops)) if entropy is None and self.random else entropy
        if self.draws > 1 and entropy is not None:
            crops, entropy = np.tile(crops, (self.draws, 1, 1, 1)), spread(entropy, self.draws)
        for stream, defense in enumerate(self.defenses):
            crops = apply_numpy(defense, crops, entropy, stream)  # type: ignore[arg-type]
        return crops

    def tensorflow(self, crops: Any, entropy: Any = None) -> Any:
        """Apply all defenses in order, in TensorFlow. See `numpy`. A random profile needs `entropy` (N,)."""
        if self.draws > 1:
            import tensorflow as tf

            crops, entropy = tf.tile(crops, (self.draws, 1, 1, 1)), tensorflow_spread(entropy, self.draws)
        for stream, defense in enumerate(self.defenses):
            crops = apply_tensorflow(defense, crops, entropy, stream)
        return crops

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add all defenses in order, as nodes after `value`. Return the name of the defended value. See `numpy`."""
        for stream, defense in enumerate(self.defenses):
            # What is not random is the same for all draws. `Noise` asks for the draws itself, after it has averaged.
            if is_random(defense) and not isinstance(defense, Noise):
                value = graph.drawn(value)
            value = apply_onnx(defense, graph, value, stream)
        return graph.drawn(value)

    def embed_and_score(
        self, embed: Embed, metric: Metric, crops: NDArray[np.float32], entropy: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Compute the outputs of the hardened verifier step by step, as a reference for its graph.

        Args:
            embed: the bare verifier, from crops to embeddings.
            metric: the metric of its distances.
            crops: (N, H, W, 3) in [0, 1].
            entropy: see `numpy`.

        Returns:
            Embeddings (N, D), and attack scores (N,), which are zero without a detector. With a vote, the embeddings of
            all draws (N, draws * D).
        """
        defended = self.numpy(crops, entropy)
        embeddings = embed(np.concatenate([defended, *(squeezer.numpy(defended) for squeezer in self.squeezers)]))
        folded = fold(embeddings, 1 + len(self.squeezers), len(crops))
        result = folded[0] if self.vote is None else drawn_apart(embeddings[: len(defended)], len(crops))
        return result, attack_scores(metric, folded)


def shipped_profiles() -> dict[str, Path]:
    """Return the files of the profiles that are shipped with the toolkit, by name."""
    return {path.stem: path for path in sorted(bundled("profiles").glob("*.toml"))}


def find_profile(name: str | Path | Profile) -> Profile:
    """Find a profile.

    Args:
        name: the name of a shipped profile, the path of a .toml file, or a profile, which is returned unchanged.

    Raises:
        UsageError: there is no such profile.
        InputError: the file is not a valid profile.
    """
    if isinstance(name, Profile):
        return name
    name = str(name)
    if name.endswith(".toml"):
        return read_profile(Path(name))
    shipped = shipped_profiles()
    if name not in shipped:
        raise UsageError(unknown("profile", name, shipped))
    return read_profile(shipped[name])


def read_profile(path: Path) -> Profile:
    """Read and check a profile file.

    Raises:
        InputError: the file cannot be read or is not valid. The message names the place and the nearest valid name.
    """
    content, text = read_toml(path)
    _check_keys(content, _KEYS, str(path))
    if content.get("schema") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema is {content.get('schema')!r}; this version of sixpixels reads schema {SCHEMA_VERSION}"
        )
    name, description = content.get("name"), content.get("description", "")
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not isinstance(description, str):
        raise InputError(
            f"{path}: name must be a string of 1 to {LONGEST_NAME} characters, and description must be a string"
        )
    steps = content.get("defense", [])
    if not isinstance(steps, list):
        raise InputError(f"{path}: defense must be a list; write [[defense]] tables")
    defenses = tuple(_read_defense(step, path.parent, f"{path}: defense {i}") for i, step in enumerate(steps, 1))
    draws = _read_ensemble(content.get("ensemble"), defenses, f"{path}: ensemble")
    detector = _read_detector(content.get("detector"), path.parent, f"{path}: detector")
    vote = _read_vote(content.get("vote"), f"{path}: vote")
    # The hash includes the files that defenses read, because other files make another defense.
    squeezers = () if detector is None else detector.squeezers
    files = "".join(map(file_hash, (*defenses, *squeezers)))
    sha256 = hashlib.sha256((text + files).encode()).hexdigest()
    profile = Profile(name, description, defenses, sha256, text, draws, detector, vote, str(path.resolve()))
    if vote is not None and (draws == 1 or not profile.sigma):
        raise InputError(
            f"{path}: vote: needs [ensemble] draws and the defense noise as the first one; a certificate is about "
            "noise that is added to the crop itself"
        )
    return profile


def write_new_profile(path: Path, names: Sequence[str]) -> None:
    """Write a profile with some defenses. All parameters have their default values.

    Raises:
        UsageError: a defense is unknown, or the file exists or does not end in .toml.
    """
    import tomlkit

    if path.suffix != ".toml" or path.exists():
        raise UsageError(f"{path}: must be a .toml file that does not exist yet")
    document = tomlkit.document()
    document.update({"schema": SCHEMA_VERSION, "name": path.stem, "description": ""})
    steps = tomlkit.aot()
    for defense in choose("defense", names, discover("defense")):
        step = tomlkit.table()
        step.add("name", defense.name)
        doc = inspect.getdoc(defense) or ""
        step.comment(doc.splitlines()[0])
        for field in dataclasses.fields(defense):
            step.add(field.name, field.default)
        steps.append(step)
    document.add("defense", steps)
    write_bytes(path, tomlkit.dumps(document).encode())


def _check_keys(table: dict[str, Any], known: Iterable[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise InputError(f"{where}: {unknown('key', key, sorted(known))}")


def _read_ensemble(table: object, defenses: Sequence[AnyDefense], where: str) -> int:
    if table is None:
        return 1
    if not isinstance(table, dict):
        raise InputError(f"{where} must be a table with draws")
    _check_keys(table, {"draws"}, where)
    draws = table.get("draws")
    if type(draws) is not int or not 2 <= draws <= MOST_DRAWS:
        raise InputError(f"{where}: draws must be an integer from 2 to {MOST_DRAWS}, not {draws!r}")
    if not any(is_random(defense) for defense in defenses):
        raise InputError(
            f"{where}: no defense is random, so that all draws are equal; add a random defense, or remove [ensemble]"
        )
    return draws


def _read_detector(table: object, folder: Path, where: str) -> Detector | None:
    if table is None:
        return None
    if not isinstance(table, dict) or not isinstance(table.get("squeezer"), list):
        raise InputError(f"{where} must be a table with [[detector.squeezer]] tables")
    _check_keys(table, {"squeezer", "threshold", "false_alarm"}, where)
    squeezers = [_read_defense(step, folder, f"{where}: squeezer {i}") for i, step in enumerate(table["squeezer"], 1)]
    deterministic = tuple(squeezer for squeezer in squeezers if not is_random(squeezer))
    if len(deterministic) < len(squeezers):
        drawing = next(squeezer.name for squeezer in squeezers if is_random(squeezer))
        raise InputError(f"{where}: squeezer {drawing!r} is random; a squeezer must be deterministic")
    hint = "; write any valid number and run `sixpixels profiles calibrate-detector`"
    numbers = {key: _number(table, key, where, hint) for key in ("threshold", "false_alarm")}
    try:
        return Detector(deterministic, **numbers)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _read_vote(table: object, where: str) -> Vote | None:
    if table is None:
        return None
    if not isinstance(table, dict):
        raise InputError(f"{where} must be a table with threshold and confidence")
    _check_keys(table, {"threshold", "confidence"}, where)
    try:
        return Vote(_number(table, "threshold", where), _number(table, "confidence", where))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _number(table: dict[str, Any], key: str, where: str, hint: str = "") -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: {key} must be a number, not {value!r}{hint}")
    return float(value)


def _read_defense(step: object, folder: Path, where: str) -> AnyDefense:
    known = discover("defense")
    if not isinstance(step, dict) or not isinstance(step.get("name"), str):
        raise InputError(f"{where}: name is missing; choose one of {', '.join(known)}")
    parameters = dict(step)
    name = parameters.pop("name")
    if name not in known:
        raise InputError(f"{where}: {unknown('defense', name, known)}")
    fields = {field.name: field for field in dataclasses.fields(known[name])}
    for key, value in parameters.items():
        if key not in fields:
            raise InputError(f"{where} ({name}): {unknown('parameter', key, fields)}")
        parameters[key] = _read_parameter(fields[key], value, folder, f"{where} ({name}): {key}")
    try:
        defense: AnyDefense = known[name](**parameters)
    except ValueError as error:
        raise InputError(f"{where} ({name}): {error}") from error
    return defense


def _read_parameter(field: Any, value: Any, folder: Path, where: str) -> Any:
    """Read a parameter's value. Files must be inside `folder`. Nested defenses are read as well.

    Raises:
        InputError: the value is not valid.
    """
    if field.metadata.get("defenses"):
        if not isinstance(value, list):
            raise InputError(f"{where} must be a list of defenses, not {value!r}")
        return tuple(_read_defense(option, folder, f"{where}, number {i}") for i, option in enumerate(value, 1))
    kind = type(field.default)
    if kind is float and type(value) is int and abs(value) < _LARGEST_WHOLE:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{where} must be of type {kind.__name__}, not {value!r}")
    if field.metadata.get("file"):
        if value.endswith(".toml"):
            return str(inside(folder, value, where))
        if not value.replace("-", "").isalnum():
            raise InputError(f"{where} must be a shipped name or the path of a .toml, not {value!r}")
    return value
