"""JSON pointers: where a value lies in a JSON document.

Source: RFC 6901.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

_INDEX = re.compile("0|[1-9][0-9]{0,8}", re.ASCII)
_ESCAPE = re.compile("~(?![01])")


class Missing:
    """What a pointer finds where there is no value. Null is a value."""


MISSING: Final = Missing()


def parse_pointer(text: str) -> tuple[str, ...] | None:
    """Return the steps of a pointer, for example ("faces", "0") of "/faces/0". Return None if it is not valid."""
    if (text and not text.startswith("/")) or _ESCAPE.search(text):
        return None
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:])


def find(document: Any, steps: Sequence[str]) -> Any:
    """Return the value at a pointer, or `MISSING`."""
    for step in steps:
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and _INDEX.fullmatch(step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return MISSING
    return document


def put(document: dict[str, Any], steps: Sequence[str], value: Any) -> bool:
    """Put a value at a pointer. Where containers are missing, the step "0" begins a list, and any other an object.

    Returns:
        Whether there is such a place: every step leads into a list or an object, and leaves no gap in a list.
    """
    place: Any = document
    for step, following in zip(steps, (*steps[1:], None), strict=False):
        inner: Any = value if following is None else [] if following == "0" else {}
        if isinstance(place, dict):
            place[step] = value if following is None else place.get(step, inner)
            place = place[step]
        elif isinstance(place, list) and _INDEX.fullmatch(step) and int(step) <= len(place):
            if int(step) == len(place):
                place.append(inner)
            elif following is None:
                place[int(step)] = value
            place = place[int(step)]
        else:
            return False
    return bool(steps)
