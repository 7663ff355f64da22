"""TOML files. Every error message names the file and the key."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, get_args

from toolkit.errors import InputError
from toolkit.plain import check_plain, read_limited
from toolkit.registry import nearest
from toolkit.text import LONGEST_NAME

_LARGEST_FILE = 1 << 20
# The time that tomllib takes for a dotted key grows with the third power of its parts.
_MOST_DOTS = 64


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

    def name_text(self, key: str, default: Any = ...) -> Any:
        """Remove and return the name of something, which reports show in narrow columns.

        Raises:
            InputError: the value is not a string, is empty or has more than `LONGEST_NAME` characters, or the key is
                missing and has no default.
        """
        value = self.take(key, str, default)
        if isinstance(value, str) and not (value.strip() and len(value) <= LONGEST_NAME):
            raise self.fail(key, f"must have 1 to {LONGEST_NAME} characters")
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
        InputError: the file cannot be used (`read_toml`), or has another schema version.
    """
    top = Table(source, "", read_toml(source)[0])
    found = top.take("schema", int)
    if found != schema:
        raise top.fail("schema", f"is {found}; this version of sixpixels reads schema {schema}")
    return top


def read_toml(source: Path) -> tuple[dict[str, Any], str]:
    """Read a TOML file. Every TOML file from outside is read here.

    Returns:
        Its content, and its text with line feeds as line breaks.

    Raises:
        InputError: the file cannot be read, is too large, is not TOML, or has a value beyond the limits of
            `plain.check_plain` or a control character.
    """
    content = read_limited(source, _LARGEST_FILE)
    try:
        text = content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
            raise ValueError(f"a line has more than {_MOST_DOTS} dots")  # noqa: TRY301
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a very long number, deeply nested tables
        raise InputError(f"{source}: is not valid TOML ({error})") from error
    try:
        check_plain(table, controls=False)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
    return table, text


def edit_toml(source: Path) -> Any:
    """Read a TOML file as a document of tomlkit, which keeps comments and order when it is written again.

    Raises:
        InputError: see `read_toml`.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    _, text = read_toml(source)
    try:
        return tomlkit.parse(text)
    except (TOMLKitError, ValueError, RecursionError) as error:
        raise InputError(f"{source}: cannot be edited as TOML ({error})") from error
