"""Parameters of attacks as a user sets them: ``ATTACK.PARAMETER=VALUE``."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from toolkit.attacks.base import Attack
from toolkit.defenses.parameters import check
from toolkit.errors import UsageError
from toolkit.registry import unknown


def apply_settings(attacks: Sequence[Attack], settings: Sequence[str]) -> tuple[Attack, ...]:
    """The attacks with some parameters set; of two settings of one parameter the later one holds.

    Args:
        attacks: the attacks of a run.
        settings: ``pgd.epsilon=8/255``, ``simba.basis=pixel``, ``glasses.mask=FILE``: numbers may be fractions, and a
            value is of its parameter's type and in its declared range.

    Raises:
        UsageError: an attack is not of the run, or a parameter or value does not exist.
    """
    by_name = {attack.name: attack for attack in attacks}
    for setting in settings:
        place, equals, text = setting.partition("=")
        name, dot, parameter = place.rpartition(".")
        if not (equals and dot):
            raise UsageError(f"--set {setting}: write ATTACK.PARAMETER=VALUE, for example pgd.epsilon=8/255")
        if name not in by_name:
            raise UsageError(f"--set {setting}: {unknown('attack of this run', name, by_name)}")
        attack = by_name[name]
        # What an attack is called is not a parameter of it.
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


def is_file(attack: Attack, parameter: str) -> bool:
    """Whether a parameter names a file."""
    kind = get_type_hints(type(attack)).get(parameter)
    return get_origin(kind) in (Union, types.UnionType)  # the one such type is that of a file that may be given


def _parse(kind: Any, text: str) -> object:
    """A value of the type of a parameter.

    Raises:
        ValueError: the text is none.
    """
    if get_origin(kind) in (Union, types.UnionType):  # the one such type is that of a file that may be given
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
