"""Whether defenses fit the crops that a verifier takes."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.defenses.base import AnyDefense
from toolkit.errors import InputError
from toolkit.verifiers.manifest import Input


def check_sizes(defenses: Sequence[AnyDefense], crops: Input, what: str) -> None:
    """Refuse a chain that would fail, or mirror what is not there, on crops of this size.

    A defense that reflects borders has a `smallest_side`, in pixels; one whose network has fixed sides has `sides`.

    Raises:
        InputError: a defense does not fit; the message begins with `what` and names it.
    """
    height, width = crops.height, crops.width
    for i, defense in enumerate(defenses, 1):
        place = f"{what}: defense {i} ({defense.name})"
        smallest = getattr(defense, "smallest_side", 1)
        if min(height, width) < smallest:
            raise InputError(
                f"{place} needs crops of at least {smallest} x {smallest} pixels, but the verifier takes "
                f"{width} x {height}; make it smaller"
            )
        sides = getattr(defense, "sides", (None, None))
        if any(fixed not in (None, side) for fixed, side in zip(sides, (height, width), strict=True)):
            raise InputError(
                f"{place} is a network for crops of {sides[1] or 'any'} x {sides[0] or 'any'} pixels, but the verifier "
                f"takes {width} x {height}; export it for sides of any size"
            )
