"""Output of the commands: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from toolkit.text import LONGEST_NAME, LONGEST_SENTENCES, cut, shown, visible, visible_lines

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class SafeConsole(Console):
    """A console that makes every text visible before it lays the page out; see `text.visible`.

    Names in a run come from outside, and reports print them in tables, titles and sentences.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text visible, in one line, and render it."""
        return super().render_str(visible(cut(text, LONGEST_SENTENCES)), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Make a rich text visible, with its line breaks, and render it."""
        if isinstance(renderable, Text):
            renderable = renderable.copy()
            renderable.plain = visible_lines(cut(renderable.plain, LONGEST_SENTENCES))
        return super().render(renderable, options)


def console() -> Console:
    """A console on standard output that does not read brackets as markup: names and paths may have brackets."""
    return SafeConsole(highlight=False, markup=False)


def say(line: object) -> None:
    """Print one line, with everything in it made visible."""
    print(visible(str(line)))


def say_file(text: str) -> None:
    """Print the text of a file, with everything in it made visible."""
    print(visible_lines(text.removesuffix("\n")))


def print_document(document: DataclassInstance) -> None:
    """Print a result as JSON."""
    from toolkit.documents import to_json

    print(to_json(document), end="")


def print_json(content: dict[str, Any]) -> None:
    """Print a JSON Schema, or other content, as JSON in ASCII."""
    print(json.dumps(content, indent=2))


class RichProgress:
    """Progress bars on standard error; hidden if standard error is not a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description:24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=SafeConsole(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
            transient=True,
        )

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Add a bar of `total` steps. Call the result with the number of steps just done."""
        task = self.bars.add_task(shown(name, LONGEST_NAME), total=total)
        return lambda done: self.bars.advance(task, done)

    def counter(self, name: str) -> Callable[[int, int | None], None]:
        """Add a bar with an unknown total. Call the result with (steps done so far, total or None)."""
        task = self.bars.add_task(shown(name, LONGEST_NAME), total=None)
        return lambda done, total: self.bars.update(task, completed=done, total=total)


@contextmanager
def progress(*, quiet: bool) -> Iterator[RichProgress]:
    """Show progress bars until the block ends, unless `quiet`."""
    shown = RichProgress(quiet=quiet)
    with shown.bars:
        yield shown
