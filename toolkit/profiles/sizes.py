"""Check that defenses fit the size of a verifier's crops."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.defenses.base import AnyDefense, multiple, sides, smallest_side
from toolkit.errors import InputError
from toolkit.verifiers.manifest import Input


def check_sizes(defenses: Sequence[AnyDefense], crops: Input, what: str) -> None:
    """Check that all defenses can process crops of the verifier's size.

    Defenses that reflect borders need a smallest side. Networks may need a fixed size.

    Args:
        defenses: the defenses, in order.
        crops: the verifier's input.
        what: the start of the error message.

    Raises:
        InputError: a defense does not fit. The message names it.
    """
    height, width = crops.height, crops.width
    for i, defense in enumerate(defenses, 1):
        place = f"{what}: defense {i} ({defense.name})"
        smallest = smallest_side(defense)
        if min(height, width) < smallest:
            raise InputError(
                f"{place} needs crops of at least {smallest} x {smallest} pixels, but the verifier takes "
                f"{width} x {height}; use a smaller filter"
            )
        by = multiple(defense)
        if height % by or width % by:
            raise InputError(
                f"{place} needs crops whose sides are multiples of {by}, but the verifier takes {width} x {height}; "
                "use another block"
            )
        fixed_height, fixed_width = sides(defense)
        if fixed_height not in (None, height) or fixed_width not in (None, width):
            fixed = f"{fixed_width or 'any'} x {fixed_height or 'any'}"
            raise InputError(
                f"{place} is a network for crops of {fixed} pixels, but the verifier takes {width} x {height}; "
                "export it for any size"
            )
