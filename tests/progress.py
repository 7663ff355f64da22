"""Progress that nobody sees, and a test can count."""

from __future__ import annotations

from collections.abc import Callable


class Silent:
    """Counts the pairs that were announced as done."""

    def __init__(self) -> None:
        self.done = 0

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        def advance(count: int) -> None:
            self.done += count

        return advance

    def counter(self, name: str) -> Callable[[int, int | None], None]:
        return lambda done, total: None
