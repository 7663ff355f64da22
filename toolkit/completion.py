"""Names for shell completion. They are read from folders, because slow imports would delay the shell."""

from __future__ import annotations

from pathlib import Path

from toolkit.files import bundled
from toolkit.registry import plugin_names


def model_names() -> list[str]:
    """Return the names of the shipped models."""
    return sorted(path.parent.name for path in bundled("models").glob("*/model.toml"))


def profile_names() -> list[str]:
    """Return the names of the shipped profiles."""
    return sorted(path.stem for path in bundled("profiles").glob("*.toml"))


def attack_names() -> list[str]:
    """Return the names of all attacks: our own modules that define ``ATTACK``, and plugins."""
    modules = (Path(__file__).parent / "attacks").glob("*.py")
    own = (path.stem.replace("_", "-") for path in modules if "\nATTACK = " in path.read_text(encoding="utf-8"))
    return sorted({*own, *plugin_names("attack")})


def complete_last(incomplete: str, names: list[str]) -> list[str]:
    """Complete the last name in a comma-separated list.

    Args:
        incomplete: the list as typed so far.
        names: the possible names.

    Returns:
        The possible lists, each with the names before the last comma. Names already in the list are not offered.
    """
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [before + comma + name for name in names if name.startswith(last) and name not in taken]
