"""Runs are compared on the pairs that count in both, each pair with itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.risk.runs import Told, falls, told_run
from toolkit.audit.results.outcomes import COLUMNS, Run
from toolkit.risk.paired import Difference, differences
from toolkit.risk.policy import find_policy
from toolkit.statistics.tests import mcnemar

POLICY = find_policy("access-control")


def knows(dodged: int, impersonated: int = 0, **others: object) -> Told:
    return Told("deepfool", "perfect", "mean3", dodged=dodged, impersonated=impersonated, **others)


def between(first: object, second: object) -> dict[str, Difference]:
    return {d.id: d for d in differences(first, second, POLICY)}


def fell(d: Difference) -> tuple[int, int, int]:
    return d.pairs, d.only_first, d.only_second


def test_pairs_that_fell_in_one_run_alone_are_counted() -> None:
    found = differences(told_run([knows(4, 9)]), told_run([knows(12, 2)]), POLICY)
    assert [(d.id, d.profile, *fell(d)) for d in found] == [
        ("deepfool/perfect/mean3/dodging", "mean3", 30, 0, 8),
        ("deepfool/perfect/mean3/impersonation", "mean3", 30, 7, 0),
        ("clean/none/fnmr", "none", 30, 0, 0),
        ("clean/none/fmr", "none", 30, 0, 0),
        ("clean/mean3/fnmr", "mean3", 30, 0, 0),
        ("clean/mean3/fmr", "mean3", 30, 0, 0),
    ]
    assert [d.p_value for d in found] == [mcnemar(0, 8), mcnemar(7, 0), 1, 1, 1, 1]
    # Holm by hand: the smallest of six times 6, the next times 5.
    assert [d.p_adjusted for d in found] == pytest.approx([6 * mcnemar(0, 8), 5 * mcnemar(7, 0), 1, 1, 1, 1])


def test_a_pair_that_was_not_eligible_in_one_run_counts_in_neither() -> None:
    """The first run decides twelve pairs wrongly without any attack: that they fall in the second says nothing."""
    wrong, right = told_run([knows(12)], wrong=range(12)), told_run([knows(12)])
    attacked = "deepfool/perfect/mean3/dodging"
    assert fell(between(wrong, right)[attacked]) == (18, 0, 0)
    assert fell(between(right, wrong)[attacked]) == (18, 0, 0)
    # As a clean error it was worse.
    assert fell(between(wrong, right)["clean/mean3/fnmr"]) == (30, 12, 0)
    assert fell(between(right, wrong)["clean/mean3/fnmr"]) == (30, 0, 12)
    assert fell(between(right, wrong)["clean/mean3/fmr"]) == (30, 0, 0)


def test_false_matches_are_errors_of_the_other_kind() -> None:
    wrong, right = told_run([knows(0, 5)], wrong=range(30, 35)), told_run([knows(0, 5)])
    found = between(right, wrong)
    assert fell(found["clean/none/fmr"]) == (30, 0, 5)
    assert fell(found["clean/none/fnmr"]) == (30, 0, 0)
    assert fell(found["deepfool/perfect/mean3/impersonation"]) == (25, 0, 0)


def test_pairs_are_found_by_their_names_wherever_they_are() -> None:
    # The first ten pairs of the one are the last ten of the other, which fell there by their place.
    first, second = told_run([knows(0)]), told_run([knows(25)], first=20)
    found = between(first, second)
    assert fell(found["deepfool/perfect/mean3/dodging"]) == (10, 0, 10)
    later = between(first, told_run([knows(25)], first=10))
    assert fell(later["deepfool/perfect/mean3/dodging"]) == (20, 0, 20)
    assert fell(between(second, first)["deepfool/perfect/mean3/dodging"]) == (10, 10, 0)


def test_runs_without_a_common_pair_have_nothing_to_compare() -> None:
    found = between(told_run([knows(0)]), told_run([knows(30)], first=100))
    assert {(d.pairs, d.p_value) for d in found.values()} == {(0, 1.0)}


def test_a_pair_that_is_genuine_in_one_run_alone_is_not_the_same() -> None:
    first, second = told_run([knows(30)]), told_run([knows(0)])
    other = second.genuine.copy()
    other[:4] = False
    found = between(first, replace(second, genuine=other))
    assert fell(found["deepfool/perfect/mean3/dodging"]) == (26, 26, 0)
    assert fell(found["deepfool/perfect/mean3/impersonation"]) == (30, 0, 0)
    assert fell(found["clean/mean3/fnmr"]) == (26, 0, 0)
    assert fell(found["clean/mean3/fmr"]) == (30, 0, 0)


def backwards(run: Run) -> Run:
    """The same run with its pairs in the other order."""
    return replace(
        run,
        pairs=run.pairs[::-1],
        genuine=run.genuine[::-1],
        clean=tuple(replace(c, distances=c.distances[::-1], correct=c.correct[::-1]) for c in run.clean),
        outcomes=tuple(replace(o, **{name: getattr(o, name)[::-1] for name in COLUMNS}) for o in run.outcomes),
    )


def test_the_order_of_pairs_is_nothing() -> None:
    first, second = told_run([knows(9, 2)], wrong=[0, 1, 40]), told_run([knows(3, 5)], wrong=[7, 33, 34])
    expected = differences(first, second, POLICY)
    assert fell(expected[2]) == (30, 2, 1)
    assert differences(first, backwards(second), POLICY) == expected
    assert differences(backwards(first), second, POLICY) == expected


def test_scenarios_and_profiles_of_one_run_alone_are_left_out() -> None:
    both = [Told("deepfool", "zero", "mean3", dodged=3), knows(7)]
    first, second = told_run(both), told_run(both[1:], profiles=("mean3",))
    names = [
        "deepfool/perfect/mean3/dodging",
        "deepfool/perfect/mean3/impersonation",
        "clean/mean3/fnmr",
        "clean/mean3/fmr",
    ]
    assert list(between(first, second)) == list(between(second, first)) == names


def test_each_scenario_is_compared_with_itself() -> None:
    """What the attacker knows, the profile and the attack tell scenarios apart."""
    one = [
        Told("deepfool", "zero", "mean3", dodged=1),
        knows(2),
        Told("fgsm", "perfect", "mean3", dodged=3),
        Told("deepfool", "perfect", "none", dodged=4),
    ]
    other = [replace(told, dodged=told.dodged + 10) for told in reversed(one)]
    found = between(told_run(one), told_run(other))
    attacked = {name: d for name, d in found.items() if name.endswith("dodging")}
    assert len(attacked) == 4
    assert {fell(d) for d in attacked.values()} == {(30, 0, 10)}
    assert attacked["deepfool/perfect/none/dodging"].profile == "none"


def test_only_what_is_within_the_budget_fell_unless_it_is_worn() -> None:
    quiet, loud = told_run([knows(9)]), told_run([knows(9, rms=100.0)])
    assert fell(between(quiet, loud)["deepfool/perfect/mean3/dodging"]) == (30, 9, 0)
    worn = [told_run([Told("glasses", "zero", "mean3", dodged=9, rms=rms)]) for rms in (1.0, 100.0)]
    assert fell(between(*worn)["glasses/zero/mean3/dodging"]) == (30, 0, 0)


def test_pairs_fall_to_either_side() -> None:
    """Pairs that fell in both or in neither tell nothing."""
    first, second = told_run([knows(0)]), told_run([knows(0)])
    sides = [np.isin(np.arange(60), chosen) for chosen in ([0, 1, 2, 3, 4], [3, 4, 5])]
    runs = [
        replace(run, outcomes=(falls(run.outcomes[0], side),)) for run, side in zip((first, second), sides, strict=True)
    ]
    assert fell(between(*runs)["deepfool/perfect/mean3/dodging"]) == (30, 3, 1)


def test_a_bare_verifier_of_another_name_is_the_same_attacker() -> None:
    """The id of a finding does not name what the attacker knows of the bare verifier, so neither may the comparison."""
    first = told_run([Told("apgd", "zero", "mean3", dodged=3)])
    second = told_run([Told("apgd", "zero", "mean3", dodged=9, known="bare")])
    (found,) = (d for d in differences(first, second, POLICY) if d.id == "apgd/zero/mean3/dodging")
    assert (found.only_first, found.only_second) == (0, 6)
