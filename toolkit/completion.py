"""What a shell may complete: names that are found in folders, without importing anything that takes time."""

from __future__ import annotations

from pathlib import Path

from toolkit.files import bundled


def model_names() -> list[str]:
    """The shipped models."""
    return sorted(path.parent.name for path in bundled("models").glob("*/model.toml"))


def profile_names() -> list[str]:
    """The shipped profiles."""
    return sorted(path.stem for path in bundled("profiles").glob("*.toml"))


def attack_names() -> list[str]:
    """The attacks: modules that have an ``ATTACK``, named as it is."""
    modules = (Path(__file__).parent / "attacks").glob("*.py")
    return sorted(path.stem.replace("_", "-") for path in modules if "\nATTACK = " in path.read_text(encoding="utf-8"))


def complete_last(incomplete: str, names: list[str]) -> list[str]:
    """Completions of the last name of a list with commas, with what stands before it; a name is not offered twice."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [before + comma + name for name in names if name.startswith(last) and name not in taken]
