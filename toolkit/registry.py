"""Registries: one module for each attack or defense, found by importing the modules of a folder."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from toolkit.errors import UsageError


def discover(package: ModuleType, attribute: str) -> dict[str, Any]:
    """Collect `attribute` of every module of `package` that has it, keyed by its ``name``, in order of name."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        entry = getattr(importlib.import_module(f"{package.__name__}.{info.name}"), attribute, None)
        if entry is not None:
            found[entry.name] = entry
    return dict(sorted(found.items()))


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A message for an unknown name that offers the nearest one."""
    return f"unknown {what} {name!r}; {nearest(name, known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say about an unknown name: the nearest that is known, or all of them where none is near."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def choose(what: str, names: Iterable[str], known: dict[str, Any]) -> list[Any]:
    """The entries of `names`, in that order, each once.

    Raises:
        UsageError: a name is not known, or there is none.
    """
    chosen = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise UsageError(unknown(what, name, known))
        chosen.append(known[name])
    if not chosen:
        raise UsageError(f"no {what} chosen; known: {', '.join(known)}")
    return chosen
