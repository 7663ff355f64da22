"""Threads that do pieces of work at once, and that can be stopped.

No thread can be stopped from outside: it must ask whether it should go on. Verifiers ask before each batch.

Meanwhile, NumPy's products of matrices take one thread. Several would wait for each other, and a product's last digits
depend on their number, which is that of a machine's cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from contextvars import ContextVar
from threading import Event
from types import TracebackType
from typing import Self, TypeVar

from toolkit.errors import UnavailableError

T = TypeVar("T")

# Each thread has its own. The main thread has none, because Ctrl-C reaches it anyway.
_STOP: ContextVar[Event | None] = ContextVar("stop", default=None)


class Threads:
    """A fixed number of threads. When the block ends, they stop before their next batch.

    Attributes:
        ahead: how many pieces of work to start before waiting for the first one.
    """

    def __init__(self, count: int) -> None:
        """Prepare `count` threads. A single one is the caller's own, which works when a result is asked for."""
        self._stop, self._open = Event(), ExitStack()
        self.ahead = 0 if count == 1 else 3 * count
        self._executor = (
            None if count == 1 else ThreadPoolExecutor(count, initializer=_STOP.set, initargs=(self._stop,))
        )

    def __enter__(self) -> Self:
        self._open.enter_context(one_thread_a_product())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        self._open.close()

    def submit(self, work: Callable[[], T]) -> Callable[[], T]:
        """Start a piece of work.

        Returns:
            A function that waits for the work, and returns its result or raises its error.
        """
        return work if self._executor is None else self._executor.submit(work).result


def one_thread_a_product() -> AbstractContextManager[object]:
    """Within this context, NumPy multiplies matrices on one thread."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def go_on() -> None:
    """Return, unless this thread was stopped.

    Raises:
        UnavailableError: it was stopped.
    """
    stop = _STOP.get()
    if stop is not None and stop.is_set():
        raise UnavailableError("the work is being stopped")
