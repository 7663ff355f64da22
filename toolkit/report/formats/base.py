"""What a format is: a name, a file, and a function from a report to its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toolkit.risk.findings import Report


@dataclass(frozen=True)
class Format:
    """One rendering of a report.

    Attributes:
        name: on the command line.
        file: the name of the file in the run's folder.
        render: gives the file's text.
    """

    name: str
    file: str
    render: Callable[[Report], str]
