"""Parameters of attacks that a user sets with ``ATTACK.PARAMETER=VALUE``."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from toolkit.attacks.base import Attack
from toolkit.errors import UsageError
from toolkit.parameters import check
from toolkit.registry import discover, unknown

# The parameters that an attack's traits declare: a reader of the run can judge them.
_DECLARED = ("steps", "restarts", "budget", "draws", "levels", "norm", "epsilon")
# The parameters of which more only makes an attack stronger.
_MORE = ("searches",)


def apply_settings(attacks: Sequence[Attack], settings: Sequence[str]) -> tuple[Attack, ...]:
    """Set some parameters of attacks. If a parameter is set twice, the later setting applies.

    Args:
        attacks: the attacks of a run.
        settings: for example ``pgd.epsilon=8/255``, ``simba.basis=pixel`` or ``glasses.mask=FILE``. Numbers may be
            fractions. A value must have its parameter's type and be in the declared range.

    Returns:
        The attacks in the same order, with the new parameters.

    Raises:
        UsageError: an attack is not in the run, a parameter does not exist, or a value is not valid.
    """
    by_name = {attack.name: attack for attack in attacks}
    for setting in settings:
        place, equals, text = setting.partition("=")
        name, dot, parameter = place.rpartition(".")
        if not (equals and dot):
            raise UsageError(f"--set {setting}: write ATTACK.PARAMETER=VALUE, for example pgd.epsilon=8/255")
        if name not in by_name:
            raise UsageError(f"--set {setting}: {unknown('attack in this run', name, by_name)}")
        attack = by_name[name]
        # The name of an attack cannot be set.
        parameters = [field.name for field in fields(attack) if field.name != "name"]  # type: ignore[arg-type]
        if parameter not in parameters:
            raise UsageError(f"--set {setting}: {unknown(f'parameter of {name}', parameter, parameters)}")
        try:
            value = _parse(get_type_hints(type(attack))[parameter], text)
            by_name[name] = replace(attack, **{parameter: value})  # type: ignore[type-var]
            check(by_name[name])
        except ValueError as error:
            raise UsageError(f"--set {setting}: {error}") from error
    return tuple(by_name[attack.name] for attack in attacks)


def weakened(attack: Attack) -> tuple[str, ...]:
    """Return the parameters that may make an attack weaker than it is as it comes.

    A parameter counts if it differs from the attack as it comes. Those that the traits declare are left out, and more
    of what only makes an attack stronger.
    """
    known = discover("attack").get(attack.name)
    shipped = known if type(known) is type(attack) else type(attack)()
    changed = []
    for field in fields(attack):  # type: ignore[arg-type]
        value, default = getattr(attack, field.name), getattr(shipped, field.name)
        stronger = field.name in _MORE and value > default
        if value != default and not stronger and field.name not in _DECLARED:
            changed.append(field.name)
    return tuple(changed)


def is_file(attack: Attack, parameter: str) -> bool:
    """Return whether a parameter is the path of a file."""
    kind = get_type_hints(type(attack)).get(parameter)
    return get_origin(kind) in (Union, types.UnionType)  # the only union type of a parameter is `Path | None`


def _parse(kind: Any, text: str) -> object:
    """Parse a value of a parameter's type.

    Raises:
        ValueError: the text is not such a value.
    """
    if get_origin(kind) in (Union, types.UnionType):  # the only union type of a parameter is `Path | None`
        return Path(text).resolve()
    if kind is bool or get_origin(kind) is Literal:
        known = {"true": True, "false": False} if kind is bool else {str(value): value for value in get_args(kind)}
        if text not in known:
            raise ValueError(unknown("value", text, known))
        return known[text]
    what = "a whole number" if kind is int else "a number or a fraction"
    try:
        if kind is int:
            return int(text)
        above, _, below = text.partition("/")
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not {what}") from error
