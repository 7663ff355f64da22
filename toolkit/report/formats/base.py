"""The definition of a report format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toolkit.risk.findings import Report


@dataclass(frozen=True)
class Format:
    """One report format.

    Attributes:
        name: the name on the command line.
        file: the name of the file that is written.
        render: function from a report to the text of the file.
    """

    name: str
    file: str
    render: Callable[[Report], str]
