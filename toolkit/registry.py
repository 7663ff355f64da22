"""Registries of attacks, defenses and report formats: one module for each, and plugins of other distributions.

A distribution adds an attack or a defense with an entry point in the group ``sixpixels.attacks`` or
``sixpixels.defenses``. The entry point must have the same name as the attack or defense.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_type_hints

from toolkit import __version__
from toolkit.errors import UsageError

Kind = Literal["attack", "defense", "format"]


@dataclass(frozen=True)
class _Shelf:
    """Where the registry finds the entries of one kind.

    Attributes:
        package: the package whose modules define our own entries.
        attribute: the name of the entry in each of these modules.
        group: the entry point group for plugins; None if plugins are not supported.
        members: the attributes that every entry must have.
        classes: whether entries are classes; otherwise they are objects.
        values: the types that the default of a parameter can have.
    """

    package: str
    attribute: str
    group: str | None = None
    members: tuple[str, ...] = ("name",)
    classes: bool = False
    values: tuple[type, ...] = ()


_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SHELVES: dict[str, _Shelf] = {
    "attack": _Shelf(
        "toolkit.attacks",
        "ATTACK",
        "sixpixels.attacks",
        ("name", "needs", "traits", "craft"),
        values=(bool, int, float, str, tuple, Path, NoneType),
    ),
    "defense": _Shelf(
        "toolkit.defenses",
        "DEFENSE",
        "sixpixels.defenses",
        ("name", "backward", "exact", "numpy", "tensorflow", "onnx"),
        classes=True,
        values=(bool, int, float, str),
    ),
    "format": _Shelf("toolkit.report.formats", "FORMAT"),
}


@dataclass(frozen=True)
class Source:
    """The distribution that an entry comes from."""

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


OWN = Source("sixpixels", __version__)


@dataclass(frozen=True)
class Broken:
    """A plugin's entry that cannot be used, and the reason."""

    kind: str
    name: str
    source: Source
    problem: str


@dataclass(frozen=True)
class Found:
    """The entries of one kind sorted by name, the distribution of each, and the plugins that cannot be used."""

    entries: dict[str, Any]
    sources: dict[str, Source]
    broken: tuple[Broken, ...]


def discover(kind: Kind) -> dict[str, Any]:
    """Return the entries of one kind by name, sorted by name: our own and those of installed plugins.

    Raises:
        UsageError: two distributions define an entry with the same name.
    """
    return find_entries(kind).entries


@cache
def find_entries(kind: Kind) -> Found:
    """Return the entries of one kind with their sources. A broken plugin does not affect the other entries.

    Raises:
        UsageError: two distributions define an entry with the same name.
    """
    shelf = _SHELVES[kind]
    entries, sources = {}, {}
    package = importlib.import_module(shelf.package)
    for info in pkgutil.iter_modules(package.__path__):
        entry = getattr(importlib.import_module(f"{shelf.package}.{info.name}"), shelf.attribute, None)
        if entry is not None:
            entries[entry.name], sources[entry.name] = entry, OWN
    broken = []
    for point in _entry_points(shelf):
        source = _source(point)
        entry, problem = _load(point, kind, shelf)
        if problem:
            broken.append(Broken(kind, point.name, source, problem))
        elif point.name in entries:
            raise UsageError(
                f"{sources[point.name]} and {source} both define the {kind} {point.name!r}; uninstall one of them"
            )
        else:
            entries[point.name], sources[point.name] = entry, source
    return Found(dict(sorted(entries.items())), sources, tuple(broken))


def plugin_names(kind: Kind) -> list[str]:
    """Return the names of plugins of one kind without importing them."""
    return [point.name for point in _entry_points(_SHELVES[kind])]


def _entry_points(shelf: _Shelf) -> Iterator[EntryPoint]:
    if shelf.group is not None:
        yield from sorted(entry_points(group=shelf.group), key=lambda point: (point.name, point.value))


def _source(point: EntryPoint) -> Source:
    return Source("unknown", "?") if point.dist is None else Source(point.dist.name, point.dist.version)


def _load(point: EntryPoint, kind: Kind, shelf: _Shelf) -> tuple[Any, str]:
    """Return the entry, and the reason why it cannot be used (empty if it can)."""
    try:
        entry = point.load()
        problem = _problem(entry, shelf) or (_attack_problem(entry) if kind == "attack" else "")
    except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin may raise anything
        return None, f"{point.value} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if problem:
        return None, f"{point.value} is not a valid {kind}: {problem}"
    if entry.name != point.name:
        return None, f"the entry point is named {point.name}, but the {kind} is named {entry.name}"
    if not _NAME.fullmatch(point.name):
        return None, f"the name {point.name!r} is not valid; use lowercase letters, digits and single hyphens"
    return entry, ""


def _problem(entry: Any, shelf: _Shelf) -> str:
    """Return what is wrong with an entry; empty if nothing is."""
    missing = [name for name in shelf.members if not hasattr(entry, name)]
    if missing:
        return f"it has no {missing[0]}"
    if not is_dataclass(entry):
        return "it is not a dataclass"
    if isinstance(entry, type) != shelf.classes:
        return "it is an object, and must be a class" if shelf.classes else "it is a class, and must be an object"
    cls = entry if isinstance(entry, type) else type(entry)
    if cls.__hash__ is None:
        return "its dataclass is not frozen"
    get_type_hints(cls)  # `--set` reads them, so they must resolve
    for field in fields(entry):
        value = field.default if shelf.classes else getattr(entry, field.name)
        if not isinstance(value, shelf.values) and not field.metadata.get("defenses"):
            known = ", ".join(kind.__name__ for kind in shelf.values)
            return f"the default of its parameter {field.name} must be one of {known}"
    return ""


def _attack_problem(attack: Any) -> str:
    if attack.needs not in ("runtime", "gradient"):
        return f"its needs must be 'runtime' or 'gradient', not {attack.needs!r}"
    parameters = {field.name for field in fields(attack)}
    for name in ("epsilon", "steps"):  # the sanity checks run gradient attacks again with other values of them
        if attack.needs == "gradient" and getattr(attack.traits, name) and name not in parameters:
            return f"its traits have {name}, so it must have a parameter with that name"
    return ""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return an error message for an unknown name. It suggests the nearest known name.

    If the name is that of a broken plugin, the message says what is wrong with it.
    """
    return _broken(what, name) or f"unknown {what} {name!r}; {nearest(name, known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the nearest known name, or all known names if none is similar."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def choose(what: str, names: Iterable[str], known: dict[str, Any]) -> list[Any]:
    """Return the entries with the given names, in the given order, each once.

    Args:
        what: the kind of entry, for error messages.
        names: the names to look up.
        known: the entries by name.

    Raises:
        UsageError: a name is unknown, or `names` is empty.
    """
    chosen = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise UsageError(unknown(what, name, known))
        chosen.append(known[name])
    if not chosen:
        raise UsageError(f"no {what} chosen; known: {', '.join(known)}")
    return chosen


def _broken(what: str, name: str) -> str | None:
    """Return why the plugin with this name cannot be used; None if there is no such broken plugin."""
    found = find_entries(what).broken if what in _SHELVES else ()
    one = next((b for b in found if b.name == name), None)
    return None if one is None else f"{what} {name!r} of {one.source} cannot be used: {one.problem}"
