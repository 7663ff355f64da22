"""Allowed ranges of parameters, declared once for both the check in the constructor and the JSON Schema."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, TypeVar

N = TypeVar("N", int, float)


def number(default: N, lowest: N, highest: N, step: int = 1) -> N:
    """Declare a numeric dataclass field with an allowed range.

    Args:
        default: the default value.
        lowest: the smallest allowed value.
        highest: the largest allowed value.
        step: the distance between allowed integers, counted from `lowest`.
    """
    allowed: N = field(default=default, metadata={"lowest": lowest, "highest": highest, "step": step})
    return allowed


def check(defense: Any) -> None:
    """Check all parameters of a defense against their declared ranges. NaN is outside every range.

    Raises:
        ValueError: a parameter is out of its range. The message names the parameter.
    """
    for declared in fields(defense):
        if "lowest" not in declared.metadata:
            continue
        lowest, highest, step = (declared.metadata[key] for key in ("lowest", "highest", "step"))
        value = getattr(defense, declared.name)
        if not lowest <= value <= highest or (step > 1 and (value - lowest) % step):
            steps = f" in steps of {step}" if step > 1 else ""
            raise ValueError(f"{declared.name} must be from {lowest:g} to {highest:g}{steps}, not {value}")
