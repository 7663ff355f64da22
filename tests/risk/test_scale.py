"""The scale of severities at its limits, by hand."""

from __future__ import annotations

import pytest

from toolkit.risk.findings import Severity
from toolkit.risk.policy import Required
from toolkit.risk.scale import level, rated, worst_of
from toolkit.statistics.intervals import Rate


def test_a_level_starts_at_its_limit() -> None:
    assert [level(value) for value in (0, 2.999, 3, 5.999, 6, 9)] == ["low", "low", "medium", "medium", "high", "high"]


def test_the_worst_of_several_severities() -> None:
    assert worst_of(["low", "critical", "high"]) == "critical"
    assert worst_of(["low", "unknown", "note"]) == "unknown", "what is unknown may be worse than low"
    assert worst_of(["unknown", "medium"]) == "medium"
    assert worst_of([]) == "unknown"


@pytest.mark.parametrize(
    ("within", "weight", "impact", "evidence", "expected"),
    [
        # Not a single pair shows nothing, under whatever limit.
        (Rate(0, 0), 1.0, 4, True, "unknown"),
        # One pair shows an upper bound of 95 %, where so much is allowed.
        (Rate(0, 1), 1.0, 4, True, "high"),
        (Rate(0, 1), 1.0, 4, False, "unknown"),
        # The upper bound of 0 of 100 is 3 %, that of 30 of 100 is 38.4 %, and that of 60 of 100 is 68.3 %.
        (Rate(0, 100), 1.0, 4, True, "low"),
        (Rate(0, 100), 1.0, 9, True, "medium"),
        (Rate(0, 100), 1.0, 9, False, "unknown"),
        (Rate(30, 100), 1.0, 4, True, "medium"),
        (Rate(30, 100), 0.7, 4, True, "low"),
        (Rate(30, 100), 0.7, 4, False, "unknown"),
        (Rate(60, 100), 1.0, 4, True, "high"),
        (Rate(60, 100), 0.8, 4, True, "medium"),
        (Rate(60, 100), 1.0, 9, False, "critical"),
        # All that can be tried fell, however hard it is to try.
        (Rate(100, 100), 0.1, 4, True, "high"),
        (Rate(1, 1), 0.1, 4, False, "high"),
        (Rate(99, 100), 0.1, 4, True, "low"),
    ],
)
def test_a_rate_is_rated_by_hand(
    within: Rate, weight: float, impact: float, evidence: bool, expected: Severity
) -> None:
    everything_is_allowed = Required(impact, 1.0, 1, 1, ("minimal",))
    assert rated(within, weight, everything_is_allowed, evidence=evidence) == expected


def test_what_fell_among_too_few_pairs_counts_by_its_lower_bound() -> None:
    """10 of 20 lie between 30.2 % and 69.8 %: high by the one, and low by the other."""
    strict = Required(4, 0.1, 1, 1, ("minimal",))
    assert rated(Rate(10, 20), 1.0, strict, evidence=True) == "unknown"
    assert rated(Rate(12, 20), 1.0, strict, evidence=True) == "medium"
    assert rated(Rate(0, 20), 1.0, strict, evidence=True) == "unknown"
    assert rated(Rate(0, 30), 1.0, strict, evidence=True) == "low"
