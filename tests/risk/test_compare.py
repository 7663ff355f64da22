"""Runs must be compared pair by pair where they can be, and called different only where a test says so."""

from __future__ import annotations

import pytest
from scipy import stats

from tests.risk.runs import Told, told_run
from toolkit.errors import UsageError
from toolkit.risk.compare import compare
from toolkit.risk.policy import find_policy

POLICY = find_policy("access-control")
ID = "deepfool/perfect/mean3/impersonation"


def told(fell: int, **others: object) -> object:
    return told_run([Told("deepfool", "perfect", "mean3", impersonated=fell)], **others)


def cells(*runs: object) -> list:  # type: ignore[type-arg]
    return list(next(row.cells for row in compare(runs, POLICY).rows if row.id == ID))  # type: ignore[arg-type]


def test_the_same_pairs_are_compared_by_mcnemar_and_others_by_fisher() -> None:
    first, same, other = cells(told(0), told(12), told(12, first=500))
    assert first.p_value is None
    # Holm over one scenario in two goals and four clean errors.
    assert same.paired
    assert same.p_value == pytest.approx(6 * 2 * 0.5**12)
    assert not other.paired
    assert other.p_value == pytest.approx(6 * stats.fisher_exact([[0, 30], [12, 18]])[1])


def test_what_only_one_run_has_is_left_open() -> None:
    a, b = told_run([Told("fgsm", "perfect", "mean3")]), told(3)
    assert [cell.rate is None for cell in cells(a, b)] == [True, False]
    assert cells(a, b)[1].p_value is None


def test_one_run_is_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="two runs"):
        compare([told(0)], POLICY)  # type: ignore[list-item]
