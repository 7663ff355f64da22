"""Output of the commands: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def console() -> Console:
    """A console on standard output that does not read brackets as markup: names and paths may have brackets."""
    return Console(highlight=False, markup=False)


def print_document(document: DataclassInstance) -> None:
    """Print a result as JSON."""
    from toolkit.documents import to_json

    print(to_json(document), end="")


def print_schema(schema: dict[str, Any]) -> None:
    """Print a JSON Schema."""
    print(json.dumps(schema, indent=2))


class RichProgress:
    """Progress bars on standard error; hidden if standard error is not a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description:24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
            transient=True,
        )

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Add a bar of `total` steps. Call the result with the number of steps just done."""
        task = self.bars.add_task(name, total=total)
        return lambda done: self.bars.advance(task, done)

    def counter(self, name: str) -> Callable[[int, int | None], None]:
        """Add a bar with an unknown total. Call the result with (steps done so far, total or None)."""
        task = self.bars.add_task(name, total=None)
        return lambda done, total: self.bars.update(task, completed=done, total=total)


@contextmanager
def progress(*, quiet: bool) -> Iterator[RichProgress]:
    """Show progress bars until the block ends, unless `quiet`."""
    shown = RichProgress(quiet=quiet)
    with shown.bars:
        yield shown
