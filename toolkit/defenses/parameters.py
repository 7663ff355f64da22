"""Parameters of defenses: what is allowed is declared once, for the constructor's check and for the JSON Schema."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, TypeVar

N = TypeVar("N", int, float)


def number(default: N, lowest: N, highest: N, step: int = 1) -> N:
    """A dataclass field from `lowest` to `highest`, both allowed; a whole number in steps of `step`."""
    allowed: N = field(default=default, metadata={"lowest": lowest, "highest": highest, "step": step})
    return allowed


def check(defense: Any) -> None:
    """Check a defense's declared ranges; NaN lies in none.

    Raises:
        ValueError: a parameter is out of its range; the message names it.
    """
    for declared in fields(defense):
        if "lowest" not in declared.metadata:
            continue
        lowest, highest, step = (declared.metadata[key] for key in ("lowest", "highest", "step"))
        value = getattr(defense, declared.name)
        if not lowest <= value <= highest or (step > 1 and (value - lowest) % step):
            steps = f" in steps of {step}" if step > 1 else ""
            raise ValueError(f"{declared.name} must be from {lowest:g} to {highest:g}{steps}, not {value}")
