"""The interface through which long tasks report their progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """An object that shows the progress of a long task."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Begin a stage of `total` steps. Report with the returned function how many more steps are done."""
        ...

    def counter(self, name: str) -> Callable[[int, int | None], None]:
        """Begin a stage whose total may be unknown.

        Report with the returned function how many steps are done so far, and the total (None if it is unknown).
        """
        ...


class _Silent:
    """A `Progress` that shows nothing."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:  # noqa: ARG002 - a Progress
        return lambda done: None  # noqa: ARG005 - a Progress

    def counter(self, name: str) -> Callable[[int, int | None], None]:  # noqa: ARG002 - a Progress
        return lambda done, total: None  # noqa: ARG005 - a Progress


SILENT: Progress = _Silent()
