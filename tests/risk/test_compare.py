"""Runs must be compared pair by pair where they can be, and called different only where a test says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy import stats

from tests.risk.runs import Told, told_run
from toolkit.errors import UsageError
from toolkit.risk.compare import compare_runs
from toolkit.risk.policy import find_policy
from toolkit.statistics.intervals import Rate

POLICY = find_policy("access-control")
ID = "deepfool/perfect/mean3/impersonation"


def told(fell: int, **others: object) -> object:
    return told_run([Told("deepfool", "perfect", "mean3", impersonated=fell)], **others)


def cells(*runs: object) -> list:  # type: ignore[type-arg]
    return list(next(row.cells for row in compare_runs(runs, POLICY).rows if row.id == ID))  # type: ignore[arg-type]


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
        compare_runs([told(0)], POLICY)  # type: ignore[list-item]


def named(run: object, name: str) -> object:
    target = replace(run.assessment.target, name=f"{name}-verifier", model_sha256=name)  # type: ignore[attr-defined]
    return replace(run, assessment=replace(run.assessment, run=name, target=target))  # type: ignore[attr-defined]


def test_runs_stand_side_by_side_in_the_order_given() -> None:
    runs = [named(told(fell), name) for fell, name in ((3, "b"), (0, "a"), (12, "c"))]
    found = compare_runs(runs, POLICY)  # type: ignore[arg-type]
    assert found == compare_runs(runs)  # type: ignore[arg-type]
    assert found.runs == found.models == ("b", "a", "c")
    assert found.targets == ("b-verifier", "a-verifier", "c-verifier")
    assert found.budget == POLICY.within
    cells = next(row.cells for row in found.rows if row.id == ID)
    assert [cell.rate for cell in cells] == [Rate(3, 30), Rate(0, 30), Rate(12, 30)]
    # Each but the first is compared with the first: 3 to 0 is nothing, and so is 9 to 0 of six by Holm.
    assert [cell.p_value for cell in cells] == [None, 1.0, pytest.approx(6 * 2 * 0.5**9)]
    assert [cell.paired for cell in cells] == [False, True, True]


def test_rows_are_clean_errors_and_then_scenarios_as_they_were_run() -> None:
    first = told_run(
        [Told("pgd", "perfect", "mean3"), Told("deepfool", "perfect", "mean3", impersonated=30)], wrong=[0]
    )
    second = told_run([Told("deepfool", "zero", "mean3"), Told("pgd", "perfect", "mean3")], wrong=[31, 32])
    found = compare_runs([first, second], POLICY)  # type: ignore[arg-type]
    goals = ("dodging", "impersonation")
    assert [row.id for row in found.rows] == [
        *(f"clean/{profile}/{kind}" for profile in ("none", "mean3") for kind in ("fnmr", "fmr")),
        *(f"{attack}/perfect/mean3/{goal}" for attack in ("pgd", "deepfool") for goal in goals),
        *(f"deepfool/zero/mean3/{goal}" for goal in goals),
    ]
    clean = [[cell.rate for cell in row.cells] for row in found.rows[:2]]
    assert clean == [[Rate(1, 30), Rate(0, 30)], [Rate(0, 30), Rate(2, 30)]]
    assert all(cell.paired and cell.p_value == 1 for row in found.rows[:6] for cell in row.cells[1:])
    missing = found.rows[-1].cells[0], found.rows[-3].cells[1]
    assert {(cell.rate, cell.p_value, cell.paired) for cell in missing} == {(None, None, False)}


def test_the_rows_that_cannot_be_paired_are_by_fisher_alone() -> None:
    """Equal rates have p = 1, and no p value is more than that."""
    found = compare_runs([told(7), told(7, first=500)], POLICY)  # type: ignore[list-item]
    assert {(cell.paired, cell.p_value) for row in found.rows for cell in row.cells[1:]} == {(False, 1.0)}
