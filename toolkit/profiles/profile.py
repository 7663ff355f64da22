"""Profiles: an ordered list of defenses, as a TOML file."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import toolkit.defenses
from toolkit.defenses.base import AnyDefense, GraphBuilder, apply_numpy, apply_onnx, apply_tensorflow, is_random
from toolkit.errors import InputError, UsageError
from toolkit.files import bundled, inside, write_bytes
from toolkit.registry import choose, discover, unknown
from toolkit.verifiers.entropy import os_entropy

SCHEMA_VERSION = 1
_LARGEST_PROFILE = 1 << 20
# A float32 holds every whole number below it.
_LARGEST_WHOLE = 1 << 24
_KEYS = {"schema", "name", "description", "defense"}


@dataclass(frozen=True)
class Profile:
    """An ordered list of defenses; `none` is the empty one. `sha256` is of the file's text and the files it names."""

    name: str
    description: str
    defenses: tuple[AnyDefense, ...]
    sha256: str
    text: str = ""

    @property
    def random(self) -> bool:
        """Whether any defense draws random numbers."""
        return any(is_random(defense) for defense in self.defenses)

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """All defenses, in order, on crops (N, H, W, 3) in [0, 1]; `entropy` (N,) is the operating system's if None."""
        entropy = os_entropy(len(crops)) if entropy is None and self.random else entropy
        for stream, defense in enumerate(self.defenses):
            crops = apply_numpy(defense, crops, entropy, stream)  # type: ignore[arg-type]
        return crops

    def tensorflow(self, crops: Any, entropy: Any = None) -> Any:
        """All defenses, in order, differentiable; a random profile needs `entropy` (N,)."""
        for stream, defense in enumerate(self.defenses):
            crops = apply_tensorflow(defense, crops, entropy, stream)
        return crops

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """All defenses, in order, as nodes behind `value`; returns the name of the defended value."""
        for stream, defense in enumerate(self.defenses):
            value = apply_onnx(defense, graph, value, stream)
        return value


def shipped_profiles() -> dict[str, Path]:
    """The profiles that come with the toolkit: name -> file."""
    return {path.stem: path for path in sorted(bundled("profiles").glob("*.toml"))}


def find_profile(name: str) -> Profile:
    """A shipped profile by its name, or any profile by its path (ending in .toml).

    Raises:
        UsageError: there is no such profile.
        InputError: the file is not a valid profile.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    shipped = shipped_profiles()
    if name not in shipped:
        raise UsageError(unknown("profile", name, shipped))
    return read_profile(shipped[name])


def read_profile(path: Path) -> Profile:
    """Read and check a profile file.

    Raises:
        InputError: the file cannot be read or is not valid; the message names the place and the nearest valid name.
    """
    try:
        if path.stat().st_size > _LARGEST_PROFILE:
            raise InputError(f"{path}: larger than {_LARGEST_PROFILE} bytes; this is no profile")
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a number too long, tables too deep
        raise InputError(f"{path}: is not valid TOML ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error

    for key in content:
        if key not in _KEYS:
            raise InputError(f"{path}: {unknown('key', key, _KEYS)}")
    if content.get("schema") != SCHEMA_VERSION:
        raise InputError(f"{path}: schema is {content.get('schema')!r}; this version reads {SCHEMA_VERSION}")
    name, description = content.get("name"), content.get("description", "")
    if not isinstance(name, str) or not name or not isinstance(description, str):
        raise InputError(f"{path}: name must be a text that is not empty, and description a text")
    steps = content.get("defense", [])
    if not isinstance(steps, list):
        raise InputError(f"{path}: defenses are written as [[defense]] tables")
    defenses = tuple(_read_defense(step, path.parent, f"{path}: defense {i}") for i, step in enumerate(steps, 1))
    # A defense that reads files of its own is another one with other files.
    files = "".join(getattr(defense, "sha256", "") for defense in defenses)
    return Profile(name, description, defenses, hashlib.sha256((text + files).encode()).hexdigest(), text)


def write_new_profile(path: Path, names: Sequence[str]) -> None:
    """Write a profile of some defenses with all their parameters, each at its default.

    Raises:
        UsageError: there is no such defense, or the file exists or does not end in .toml.
    """
    import tomlkit

    if path.suffix != ".toml" or path.exists():
        raise UsageError(f"{path}: must be a .toml file that does not exist yet")
    document = tomlkit.document()
    document.update({"schema": SCHEMA_VERSION, "name": path.stem, "description": ""})
    steps = tomlkit.aot()
    for defense in choose("defense", names, discover(toolkit.defenses, "DEFENSE")):
        step = tomlkit.table()
        step.add("name", defense.name)
        doc = inspect.getdoc(defense) or ""
        step.comment(doc.splitlines()[0])
        for field in dataclasses.fields(defense):
            step.add(field.name, field.default)
        steps.append(step)
    document.add("defense", steps)
    write_bytes(path, tomlkit.dumps(document).encode())


def _read_defense(step: object, folder: Path, where: str) -> AnyDefense:
    known = discover(toolkit.defenses, "DEFENSE")
    if not isinstance(step, dict) or not isinstance(step.get("name"), str):
        raise InputError(f"{where}: needs a name; known: {', '.join(known)}")
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
    """A value of the field's type; files stay inside `folder`, and nested defenses are read as well."""
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
