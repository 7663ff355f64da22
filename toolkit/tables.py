"""TOML files. Every error message names the file and the key."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, get_args

from toolkit.errors import InputError
from toolkit.registry import nearest

_LARGEST_FILE = 1 << 20


class Table:
    """A TOML table that is read key by key, so that error messages can name wrong types and unknown keys.

    Attributes:
        source: the file, for messages.
        name: the table's name, for messages; empty for the top level.
        rest: the values that have not been read yet.
        asked: the keys that were read or looked for.
    """

    def __init__(self, source: Path, name: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise InputError(f"{source}: [{name}] must be a table")
        self.source, self.name, self.rest = source, name, dict(content)
        self.asked: list[str] = []

    def fail(self, key: str, problem: str) -> InputError:
        """Return an error that names the file and the key. The caller raises it."""
        return InputError(f"{self.source}: {self.name + '.' if self.name else ''}{key} {problem}")

    def take(self, key: str, kind: type, default: Any = ...) -> Any:
        """Remove and return a value of type `kind`. Integers are accepted as floats.

        Raises:
            InputError: the value has another type or is not finite, or the key is missing and has no default.
        """
        self.asked.append(key)
        if key not in self.rest:
            if default is ...:
                raise self.fail(key, "is missing")
            return default
        value = self.rest.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(key, f"must be of type {kind.__name__}, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail(key, f"must be finite, not {value!r}")
        return value

    def choice(self, key: str, allowed: Any, default: Any = ...) -> Any:
        """Remove and return a string that must be one of the values of the `Literal` type `allowed`.

        Raises:
            InputError: the value is not allowed, or the key is missing and has no default.
        """
        value = self.take(key, str, default)
        if value not in get_args(allowed):
            raise self.fail(key, f"must be one of {', '.join(get_args(allowed))}, not {value!r}")
        return value

    def numbers(self, key: str, count: int, default: Any = ...) -> tuple[float, ...]:
        """Remove and return `count` finite numbers. A single number in the file is repeated `count` times.

        Raises:
            InputError: the value is anything else, or the key is missing and has no default.
        """
        self.asked.append(key)
        if key not in self.rest and default is not ...:
            return tuple(default)
        value = self.rest.pop(key, None)
        values = value if isinstance(value, list) else [value] * count
        if len(values) != count or not all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values
        ):
            raise self.fail(key, f"must be {count} finite numbers, not {value!r}")
        return tuple(float(v) for v in values)

    def table(self, key: str) -> Table:
        """Remove and return a nested table. Return an empty table if the key is missing.

        Raises:
            InputError: the value is not a table.
        """
        self.asked.append(key)
        return Table(self.source, key, self.rest.pop(key, {}))

    def done(self) -> None:
        """Check that no unread keys are left.

        Raises:
            InputError: there is an unknown key; the message suggests a known one.
        """
        if self.rest:
            key = min(self.rest)
            raise self.fail(key, f"is not a known key; {nearest(key, self.asked)}")


def read_table(source: Path, schema: int) -> Table:
    """Read a TOML file and check its schema version.

    Raises:
        InputError: the file cannot be read, is too large, is not TOML, or has another schema version.
    """
    try:
        if source.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{source}: is larger than {_LARGEST_FILE} bytes; this cannot be one of our TOML files")
        top = Table(source, "", tomllib.loads(source.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a very long number, deeply nested tables
        raise InputError(f"{source}: is not valid TOML ({error})") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    found = top.take("schema", int)
    if found != schema:
        raise top.fail("schema", f"is {found}; this version of sixpixels reads schema {schema}")
    return top
