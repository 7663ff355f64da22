"""Files from outside: how much of one is read, and which values a parser of TOML or JSON may make of it."""

from __future__ import annotations

import itertools
import json
import math
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import InputError
from toolkit.text import visible

DEEPEST = 64
LONGEST_TEXT = 1 << 16
# Each costs far more memory and time than the two characters that write it.
_MOST_TABLES = 1_000_000
# Integers of 64 bits, which TOML, SQLite and NumPy can hold.
_INTEGERS = range(-(1 << 63), 1 << 63)
# Marks of writing direction, which can show a text in another order than a program reads it.
_DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_Place = tuple[str, ...]


def read_limited(path: Path, largest: int) -> bytes:
    """Read a file of at most `largest` bytes.

    Raises:
        InputError: the file cannot be read, or is larger. No more than `largest` bytes are ever in memory.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(largest + 1)
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(content) > largest:
        raise InputError(f"{path}: is larger than {largest} bytes; this cannot be a file of this kind")
    return content


def parse_json(content: bytes | str, source: object) -> Any:
    """Parse JSON.

    Args:
        content: the text.
        source: where it comes from, for the message.

    Raises:
        InputError: it is not JSON, a table has the same key twice, or a value is beyond the limits of `check_plain`.
    """
    text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    if text.count(b"[") + text.count(b"{") > _MOST_TABLES:
        raise InputError(f"{source}: has more than {_MOST_TABLES} tables and lists; this cannot be a file of ours")
    try:
        value = json.loads(content, object_pairs_hook=_table)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: is not JSON ({error})") from error
    try:
        check_plain(value)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a table has the same key twice")
    return table


def check_plain(content: object, *, controls: bool = True) -> None:
    """Check what a parser made: tables, lists, texts, numbers and dates.

    Args:
        content: the value.
        controls: whether texts may have control characters and marks of writing direction.

    Raises:
        ValueError: it is nested more than `DEEPEST` deep, an integer needs more than 64 bits, a number is not finite, a
            text is longer than `LONGEST_TEXT`, or a text has a character that `controls` forbids.
    """
    # One iterator for each level, so that a long list costs no memory.
    levels: list[Iterator[tuple[str, object]]] = [iter([("", content)])]
    place: list[str] = []
    while levels:
        key, value = next(levels[-1], (None, None))
        if key is None:
            levels.pop()
            del place[-1:]
            continue
        _check_text(key, (*place, key), controls=controls)
        if isinstance(value, dict | list):
            if len(levels) > DEEPEST:
                raise ValueError(f"{_name((*place, key))} is nested more than {DEEPEST} deep")
            levels.append(iter(value.items()) if isinstance(value, dict) else zip(itertools.repeat(""), value))
            place.append(key)
        elif isinstance(value, str):
            _check_text(value, (*place, key), controls=controls)
        elif isinstance(value, int) and value not in _INTEGERS:
            raise ValueError(f"{_name((*place, key))} must be an integer of at most 64 bits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{_name((*place, key))} must be finite, not {value!r}")


def _check_text(text: str, place: _Place, *, controls: bool) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{_name(place)} has more than {LONGEST_TEXT} characters")
    if not controls and not text.isprintable() and any(map(_acts, text)):
        raise ValueError(f"{_name(place)} has a control character; remove it from {visible(text)[:80]}")


def _acts(character: str) -> bool:
    return character in _DIRECTIONS or (unicodedata.category(character) == "Cc" and character not in "\t\n\r")


def _name(place: _Place) -> str:
    """The keys on the way to a value, without the numbers in lists."""
    return ".".join(key[:40] for key in place if key) or "the whole"
