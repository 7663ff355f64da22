"""Waivers: findings that somebody accepts until a date."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from toolkit.tables import Table, read_table

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Waiver:
    """One accepted finding: its id, the owner who accepts it, the reason, and the last day of the waiver."""

    finding: str
    owner: str
    reason: str
    expires: dt.date


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """Read a TOML file of ``[[waiver]]`` tables. Each table needs all four keys.

    Raises:
        InputError: the file cannot be read, a key is missing or unknown, or two waivers are for the same finding.
    """
    top = read_table(path, SCHEMA_VERSION)
    waivers: list[Waiver] = []
    for content in top.take("waiver", list, []):
        table = Table(path, "waiver", content)
        finding, owner, reason = (table.take(key, str).strip() for key in ("finding", "owner", "reason"))
        expires = table.take("expires", dt.date)
        table.done()
        for key, text in (("finding", finding), ("owner", owner), ("reason", reason)):
            if not text:
                raise table.fail(key, "must not be empty")
        if isinstance(expires, dt.datetime):
            raise table.fail("expires", "must be a date without a time")
        if any(waiver.finding == finding for waiver in waivers):
            raise table.fail("finding", f"{finding!r} is waived twice")
        waivers.append(Waiver(finding, owner, reason, expires))
    top.done()
    return tuple(waivers)
