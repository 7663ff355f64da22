"""Lists in text files from outside: tables with commas, and lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import InputError
from toolkit.plain import read_limited

_LARGEST_LIST = 1 << 25
_MOST_FIELDS = 64
_MOST_LINES = 250_000


def read_text(path: Path) -> str:
    """Read a text file with line feeds as line breaks.

    Raises:
        InputError: the file cannot be read, is too large, has too many lines, is not UTF-8, or has a null
            character.
    """
    try:
        text = read_limited(path, _LARGEST_LIST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}:{line}: has a null character; save the list as UTF-8 text")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n") > _MOST_LINES:
        raise InputError(f"{path}: has more than {_MOST_LINES} lines; split the list")
    return text


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read a table with commas, semicolons or tabs, whichever its first line has most. Every CSV file is read here.

    Yields:
        Each row that is not empty: the line of the file on which it starts, counted from 1, and its fields without
        spaces around them.

    Raises:
        InputError: see `read_text`; or a row is not CSV, has a field that is too long, or too many fields.
    """
    text = read_text(path)
    first = text.lstrip("\n").partition("\n")[0]
    separator = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start = 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise InputError(f"{path}:{start}: is not CSV ({error})") from error
        if row is None:
            return
        if len(row) > _MOST_FIELDS:
            raise InputError(f"{path}:{start}: has {len(row)} fields; the most that a list can have is {_MOST_FIELDS}")
        fields = [field.strip() for field in row]
        if any(fields):
            yield start, fields
        start = rows.line_num + 1
