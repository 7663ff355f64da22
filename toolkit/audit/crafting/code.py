"""Hashes of the code that probes depend on. When the code changes, an audit crafts its probes again."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from toolkit.attacks.base import Attack
from toolkit.defenses.base import AnyDefense, nested_defenses
from toolkit.profiles.profile import Profile
from toolkit.registry import OWN, Kind, find_entries

_OURS = "toolkit"


def attack_code(attack: Attack) -> str:
    """Hash of an attack's source code: see `code_modules`. For a plugin, its distribution and version count as well."""
    return _code("attack", attack)


def defense_code(defense: AnyDefense) -> str:
    """The same of a defense, and of the defenses that are its parameters."""
    own, options = _code("defense", defense), nested_defenses(defense)
    return hashlib.sha256("".join([own, *map(defense_code, options)]).encode()).hexdigest() if options else own


def profile_code(profile: Profile) -> list[str]:
    """The same of each defense and squeezer of a profile."""
    return [defense_code(defense) for defense in (*profile.defenses, *profile.squeezers)]


def code_modules(entry: Attack | AnyDefense) -> dict[str, str]:
    """Find the modules that an attack or a defense consists of, with the SHA-256 of each source file.

    They are its own module, and all modules of its package and of this toolkit that it imports, directly or not.
    """
    module = type(entry).__module__
    hashes: dict[str, str] = {}
    waiting, packages = [module], {module.split(".")[0], _OURS}
    while waiting:
        name = waiting.pop()
        file = None if name in hashes else _file(name)
        if file is not None:
            hashes[name], imported = _read(file, name, Path(file).stat().st_mtime_ns)
            waiting += [found for found in imported if found.split(".")[0] in packages]
    return hashes


def _code(kind: Kind, entry: Attack | AnyDefense) -> str:
    hashes, digest = code_modules(entry), hashlib.sha256()
    source = find_entries(kind).sources.get(entry.name, OWN)
    if source != OWN:
        digest.update(str(source).encode())
    for name in sorted(hashes):
        digest.update(bytes.fromhex(hashes[name]))
    return digest.hexdigest()


@cache
def _file(module: str) -> str | None:
    """Return the file of a module; None if the name is not a module's, but for example a class's in a module."""
    spec = _spec(module)
    if spec is None:  # a script has a file, but no spec
        return getattr(sys.modules.get(module), "__file__", None)
    return spec.origin if spec.has_location else None


def _spec(module: str) -> ModuleSpec | None:
    """Find a module. `importlib.util.find_spec` would import the packages around it, which may fail."""
    package = module.rpartition(".")[0]
    if package:
        above = _spec(package)
        folders = None if above is None else above.submodule_search_locations
        return None if folders is None else PathFinder.find_spec(module, folders)
    try:
        return importlib.util.find_spec(module)
    except ValueError:
        return None


@cache
def _read(file: str, module: str, _changed: int) -> tuple[str, tuple[str, ...]]:
    """The SHA-256 of a file, and the names that it imports: modules, and names in them that may be modules.

    `_changed`, the time of the last change, is part of the cache key, so that a changed file is read again.
    """
    content = Path(file).read_bytes()
    names: list[str] = []
    package = module if Path(file).stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(content)) if file.endswith(".py") else ():
        if isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return hashlib.sha256(content).hexdigest(), tuple(names)


def _absolute(name: str, package: str) -> str:
    """Resolve the name of a relative import; a name that leads out of the package stays as it is."""
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return name
