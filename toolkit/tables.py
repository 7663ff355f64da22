"""TOML files, read so that every mistake is named with its place."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, get_args

from toolkit.errors import InputError
from toolkit.registry import nearest

_LARGEST_FILE = 1 << 20


class Table:
    """A TOML table that is read key by key, so that wrong types and left-over keys are named."""

    def __init__(self, source: Path, name: str, content: Any) -> None:
        if not isinstance(content, dict):
            raise InputError(f"{source}: [{name}] must be a table")
        self.source, self.name, self.rest = source, name, dict(content)
        self.asked: list[str] = []

    def fail(self, key: str, problem: str) -> InputError:
        """An error that names the file and the key."""
        return InputError(f"{self.source}: {self.name + '.' if self.name else ''}{key} {problem}")

    def take(self, key: str, kind: type, default: Any = ...) -> Any:
        """Remove and return a value of a type; without a default, the key must be there."""
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
        """Remove and return one of the texts of a `Literal`."""
        value = self.take(key, str, default)
        if value not in get_args(allowed):
            raise self.fail(key, f"must be one of {', '.join(get_args(allowed))}, not {value!r}")
        return value

    def numbers(self, key: str, count: int, default: Any = ...) -> tuple[float, ...]:
        """A list of `count` finite numbers; one number alone stands for all of them."""
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
        """Remove and return a table within; an empty one where there is none."""
        self.asked.append(key)
        return Table(self.source, key, self.rest.pop(key, {}))

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        if self.rest:
            key = min(self.rest)
            raise self.fail(key, f"is not a known key; {nearest(key, self.asked)}")


def read_table(source: Path, schema: int) -> Table:
    """Read a TOML file and its schema version.

    Raises:
        InputError: the file cannot be read, is too large or not TOML, or is of another version.
    """
    try:
        if source.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{source}: larger than {_LARGEST_FILE} bytes; this is no manifest")
        top = Table(source, "", tomllib.loads(source.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a number too long, tables too deep
        raise InputError(f"{source}: is not valid TOML ({error})") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    found = top.take("schema", int)
    if found != schema:
        raise top.fail("schema", f"is {found}; this version reads {schema}")
    return top
