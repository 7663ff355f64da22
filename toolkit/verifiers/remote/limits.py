"""The limits of `remote.toml`: how fast, how often and at what cost a service may be called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolkit.tables import Table

_MOST_CALLS = 10_000_000


@dataclass(frozen=True)
class Limits:
    """Limits for calls of a remote verifier.

    Attributes:
        calls_per_second: the largest rate of calls. The first call does not wait.
        max_calls: the largest total number of calls, including retries.
        timeout: the timeout of one call in seconds.
        retries: how often a call is repeated if the server does not answer or asks to try again later.
        concurrency: how many calls may be under way at once.
        canary: an audit checks after this many calls that the service is still the same.
        lockout: how often a service may decide "different" against one reference before it locks that person's
            account; no more attempts are made then. None: it locks nobody.
        price: what one call costs; None if calls are free or the price is unknown.
        currency: the unit of the price.
        max_cost: the largest cost of all calls; None: `max_calls` alone limits them.
    """

    calls_per_second: float
    max_calls: int
    timeout: float
    retries: int
    concurrency: int = 1
    canary: int = 500
    lockout: int | None = None
    price: float | None = None
    currency: str = ""
    max_cost: float | None = None

    def money(self, calls: int) -> str:
        """What a number of calls costs, in words; "" without a price."""
        return "" if self.price is None else f"{calls * self.price:.2f} {self.currency}".strip()


def read_limits(table: Table) -> Limits:
    """Read a [limits] table.

    Raises:
        InputError: a value is not valid. The message names the key.
    """
    limits = Limits(
        calls_per_second=read_number(table, "calls_per_second", float, 1e-3, 1e4),
        max_calls=read_number(table, "max_calls", int, 1, _MOST_CALLS),
        timeout=read_number(table, "timeout", float, 1e-2, 600.0, 10.0),
        retries=read_number(table, "retries", int, 0, 10, 4),
        concurrency=read_number(table, "concurrency", int, 1, 64, 1),
        canary=read_number(table, "canary", int, 10, _MOST_CALLS, 500),
        lockout=_optional(table, "lockout", int, 1, _MOST_CALLS),
        price=_optional(table, "price", float, 0.0, 1e4),
        currency=table.take("currency", str, ""),
        max_cost=_optional(table, "max_cost", float, 0.0, 1e9),
    )
    if limits.max_cost is not None and limits.price is None:
        raise table.fail("max_cost", "needs price, the cost of one call")
    table.done()
    return limits


def _optional(table: Table, key: str, kind: type, low: float, high: float) -> Any:
    """Return a number; None if the key is missing."""
    return None if table.rest.get(key) is None else read_number(table, key, kind, low, high)


def read_number(table: Table, key: str, kind: type, low: float, high: float, default: Any = ...) -> Any:
    """Read a number from `low` to `high`.

    Raises:
        InputError: it is missing, of another type or outside. The message names the key.
    """
    value = table.take(key, kind, default)
    if not low <= value <= high:
        raise table.fail(key, f"must be from {low:g} to {high:g}, not {value!r}")
    return value
