"""Writing a report in several formats at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import toolkit.report.formats
from toolkit.files import write_bytes
from toolkit.registry import choose, discover
from toolkit.report.formats.base import Format
from toolkit.risk.findings import Report

# On the console; it has no file.
TERMINAL = "terminal"


def choose_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """The formats that are written to files, of `names`.

    Raises:
        UsageError: there is no such format.
    """
    known = discover(toolkit.report.formats, "FORMAT")
    return tuple(one for one in choose("format", names, {TERMINAL: None, **known}) if one is not None)


def write_reports(report: Report, formats: Sequence[Format], folder: Path) -> list[Path]:
    """Write one file for each format; returns their paths.

    Raises:
        InputError: the folder cannot be written.
    """
    texts = [(folder / one.file, one.render(report)) for one in formats]
    for path, text in texts:
        write_bytes(path, text.encode())
    return [path for path, _ in texts]
