"""Calls of a remote verifier, with a limited rate, a limited number of calls, and retries. Threads may share them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from toolkit.errors import UnavailableError
from toolkit.verifiers.remote.limits import Limits

_T = TypeVar("_T")
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# If a server asks to wait longer than this, in seconds, give up.
_LONGEST_WAIT = 120.0
# A price in decimals has no exact binary form.
_ROUNDING = 1e-9


class TransientError(Exception):
    """A call failed, but may succeed if it is repeated.

    Attributes:
        wait: how many seconds the server asks to wait; None if it does not say.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class TokenBucket:
    """A rate limiter that allows `rate` calls per second, and bursts of `size` calls."""

    def __init__(
        self,
        rate: float,
        size: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._size, self._clock, self._sleep = rate, size, clock, sleep
        self._tokens, self._at = size, clock()

    def take(self) -> None:
        """Wait for a token and take it."""
        self._fill()
        while self._tokens < 1:
            self._sleep((1 - self._tokens) / self._rate)
            self._fill()
        self._tokens -= 1

    def _fill(self) -> None:
        now = self._clock()
        # The extra 1e-9 absorbs rounding errors, which could otherwise ask for a sleep too short to change the clock.
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate + 1e-9)
        self._at = now


class Caller:
    """Makes calls within limits. Several threads may use it at once.

    Attributes:
        calls: the number of calls made so far, including retries, and those of an earlier process.
    """

    def __init__(
        self,
        where: str,
        limits: Limits,
        rng: np.random.Generator,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        spent: int = 0,
        paid: Callable[[], object] = lambda: None,
    ) -> None:
        """Create a caller.

        Args:
            where: the start of every error message.
            limits: the limits.
            rng: randomizes the pauses, so that many callers do not retry at the same time.
            clock: returns the time in seconds.
            sleep: waits for a number of seconds.
            spent: the calls that earlier processes made.
            paid: is told of each call just before it is made.
        """
        self.calls = spent
        self._where, self._limits, self._rng, self._sleep, self._paid = where, limits, rng, sleep, paid
        self._clock, self._not_before = clock, -math.inf
        self._bucket = TokenBucket(limits.calls_per_second, clock=clock, sleep=sleep)
        self._one_at_a_time = threading.Lock()

    def __call__(self, call: Callable[[], _T]) -> _T:
        """Make one call. Repeat it after a `TransientError`, with pauses that double each time.

        Raises:
            UnavailableError: no calls are left, the last retry failed, or the server asks to wait too long.
        """
        for repeated in range(self._limits.retries + 1):
            with self._one_at_a_time:
                self._wait()
                self._allow()
                self._bucket.take()
                self.calls += 1
                self._paid()
            try:
                return call()
            except TransientError as error:
                if repeated == self._limits.retries:
                    raise UnavailableError(f"{self._where}: {error}, after {repeated + 1} attempts") from error
                with self._one_at_a_time:
                    self._not_before = max(self._not_before, self._clock() + self._pause(repeated, error))
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _wait(self) -> None:
        """Wait until the pause after a failed call is over. Every thread waits, because they ask the same server."""
        left = self._not_before - self._clock()
        if left > 0:
            self._sleep(left)

    def _allow(self) -> None:
        most, cost, price = self._limits.max_calls, self._limits.max_cost, self._limits.price
        if self.calls >= most:
            raise UnavailableError(
                f"{self._where}: the {most} calls of limits.max_calls are used up; raise this limit to allow more"
            )
        if cost is not None and price is not None and (self.calls + 1) * price > cost * (1 + _ROUNDING):
            raise UnavailableError(
                f"{self._where}: {self.calls} calls cost {self._limits.money(self.calls)}, and one more would exceed "
                f"limits.max_cost; raise this limit to allow more"
            )

    def _pause(self, repeated: int, error: TransientError) -> float:
        if error.wait is not None and error.wait > _LONGEST_WAIT:
            raise UnavailableError(
                f"{self._where}: {error}, and it asks to wait {error.wait:.0f} s; try again later"
            ) from error
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**repeated) * self._rng.uniform(0.5, 1.0)
        return max(pause, error.wait or 0.0)
