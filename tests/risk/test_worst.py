"""A pair has fallen if any attack got it within the budget. Copies of a pair are one pair; a waiver is no defense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.risk.runs import Told, falls, told_run
from tests.risk.test_gate import BUDGETED, GOOD, MINIMAL, QUERY, TRANSFER, fell, with_attack
from toolkit.audit.results.outcomes import Run
from toolkit.audit.results.people import PairFaces
from toolkit.risk.findings import SEVERITIES, Met, WorstCase
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate
from toolkit.risk.worst import (
    distinct_pairs,
    fallen,
    finding_id,
    goal_pairs,
    goals_of,
    worst_cases,
)
from toolkit.statistics.intervals import Rate

POLICY = find_policy("access-control")
PAIRS = 100


def run_of(scenarios: Sequence[Told], **others: object) -> Run:
    return told_run(scenarios, **{"pairs": PAIRS, **others})


def cases(
    run: Run, policy: Policy = POLICY, waived: Sequence[str] = (), profile: str = "mean3"
) -> dict[str, WorstCase]:
    found = worst_cases(run, policy, rate(run, policy).findings, [profile], waived)
    return {case.goal: case for case in found}


def with_successes(run: Run, scenario: int, pairs: Sequence[int], rms: Sequence[float] | float = 1.0) -> Run:
    """The run, where one scenario gets these pairs alone, with perturbations of these sizes."""
    success, sizes = np.zeros(len(run.pairs), np.bool_), np.zeros(len(run.pairs))
    success[list(pairs)], sizes[list(pairs)] = True, rms
    outcomes = list(run.outcomes)
    outcomes[scenario] = replace(falls(outcomes[scenario], success), rms=sizes)
    return replace(run, outcomes=tuple(outcomes))


def with_faces(run: Run, **columns: Sequence[str]) -> Run:
    return replace(run, faces=replace(run.faces, **{name: tuple(column) for name, column in columns.items()}))


def test_a_pair_falls_to_any_attack_and_once() -> None:
    run = with_successes(with_successes(run_of(GOOD), 0, range(10)), 1, range(5, 12))
    dodging = cases(with_successes(run, 3, [40, 41, 150]))["dodging"]
    assert dodging.within == Rate(14, 100)
    assert dodging.bound == Rate(14, 100).upper_bound()
    assert dodging.by == (
        ("deepfool/perfect/mean3/dodging", 10),
        ("apgd/perfect/mean3/dodging", 7),
        ("apgd/zero/mean3/dodging", 2),
    )


def test_the_median_is_of_the_smallest_perturbation_of_each_pair() -> None:
    run = with_successes(run_of(GOOD), 0, range(3), [2.0, 1.0, 0.5])
    run = with_successes(run, 1, range(5), [1.5, 1.6, 1.7, 0.4, 0.3])
    # 1.5, 1.0, 0.5, 0.4 and 0.3.
    assert cases(run)["dodging"].median == 0.5
    # What is beyond the budget is not the smallest, though it is the only one that one attack found.
    assert cases(with_successes(run, 2, range(5, 50), 2.2))["dodging"].median == 0.5
    assert cases(run)["impersonation"].median is None


@pytest.mark.parametrize(("norm", "budget"), [("rms", 2.0), ("l2", 3.0), ("linf", 4.0)])
def test_a_perturbation_counts_up_to_the_budget_in_its_norm(norm: str, budget: float) -> None:
    run = run_of([Told("deepfool", "perfect", "mean3", dodged=3)], pairs=4)
    sizes = np.array([budget, budget * 1.001, budget * 0.5, 0, 0, 0, 0, 0])
    others = {name: np.full(8, 1e6) for name in ("rms", "l2", "linf") if name != norm}
    outcomes = replace(run.outcomes[0], **{norm: sizes}, **others)
    policy = replace(POLICY, norm=norm, budget=budget)
    found = outcomes.within(policy.norm, policy.budget, worn=False, tries=1)
    assert np.flatnonzero(found).tolist() == [0, 2]
    assert np.flatnonzero(outcomes.within(policy.norm, policy.budget, worn=True, tries=1)).tolist() == [0, 1, 2]
    assert cases(replace(run, outcomes=(outcomes,)), policy)["dodging"].within == Rate(2, 4)
    assert cases(replace(run, outcomes=(outcomes,)), policy)["dodging"].median == 0.75 * budget


def test_what_is_worn_counts_at_any_size() -> None:
    loud = {"dodged": 9, "rms": 90.0}
    assert cases(run_of([*GOOD, Told("glasses", "perfect", "mean3", **loud)]))["dodging"].within == Rate(9, 100)
    assert cases(run_of([*GOOD, Told("fmn", "perfect", "mean3", **loud)]))["dodging"].within == Rate(0, 100)


def test_copies_of_a_pair_count_once_under_whatever_names() -> None:
    run = run_of(fell(MINIMAL, dodged=11), copies=10)
    assert len(set(run.pairs)) == 2 * PAIRS
    assert cases(run)["dodging"].within == Rate(2, 10), "it fell in 10 copies of one pair and in one of another"
    assert cases(run)["impersonation"].within == Rate(0, 10)
    assert cases(run_of(fell(MINIMAL, dodged=11), copies=10, wrong=range(9)))["dodging"].within == Rate(2, 10)
    assert cases(run_of(GOOD, copies=10, wrong=range(10)))["dodging"].within == Rate(0, 9), "no copy is eligible"


def test_a_pair_with_its_images_swapped_is_the_same_pair() -> None:
    run = run_of([], pairs=2)
    run = with_faces(run, probe_crops=("a", "b", "c", "a"), reference_crops=("b", "a", "a", "d"))
    first, second, third, fourth = distinct_pairs(run).tolist()
    assert first == second
    assert len({first, third, fourth}) == 3


def test_only_eligible_pairs_of_the_goal_and_the_profile_can_fall() -> None:
    run = run_of(
        [*fell(MINIMAL, dodged=9, impersonated=4), replace(MINIMAL, profile="none", dodged=50)], wrong=[0, 120]
    )
    assert [case.within for case in cases(run).values()] == [Rate(4, 99), Rate(8, 99)]
    eligible, got, smallest = fallen(run, POLICY, "mean3", "dodging", {"deepfool/perfect/mean3/dodging"})
    assert np.flatnonzero(eligible).tolist() == list(range(1, 100))
    assert np.flatnonzero(got).tolist() == list(range(1, 9))
    assert smallest[got].tolist() == [1.0] * 8
    assert np.isinf(smallest[~got]).all()
    assert not fallen(run, POLICY, "mean3", "dodging", set())[1].any()
    assert not fallen(run, POLICY, "red30", "dodging", {"deepfool/perfect/mean3/dodging"})[0].any()


def test_what_the_policy_does_not_count_is_not_in_the_worst_case() -> None:
    run = run_of([replace(MINIMAL, dodged=50), replace(TRANSFER, dodged=3), QUERY])
    black_box = replace(POLICY, knowledge=("zero", "query"))
    assert cases(run, black_box)["dodging"].within == Rate(3, 100)
    assert cases(run, black_box)["dodging"].by == (("apgd/zero/mean3/dodging", 3),)
    assert [m.evidence for m in cases(run, black_box)["dodging"].met if not m.finding] == ["minimal", "budgeted"]


def test_a_waived_finding_does_not_count_but_it_was_tested() -> None:
    run = run_of([replace(MINIMAL, dodged=50), replace(BUDGETED, dodged=3), QUERY, TRANSFER])
    name = "deepfool/perfect/mean3/dodging"
    found = cases(run, waived=[name])
    assert found["dodging"].within == Rate(3, 100)
    assert found["dodging"].by == (("apgd/perfect/mean3/dodging", 3),)
    assert found["dodging"].met[0] == Met("minimal", name, "")
    assert found["impersonation"] == cases(run)["impersonation"]
    # Of two attacks of one class, the one that still counts says more.
    both = run_of([replace(MINIMAL, dodged=50), Told("fmn", "perfect", "mean3"), BUDGETED, QUERY, TRANSFER])
    assert cases(both, waived=[name])["dodging"].met[0] == Met("minimal", "fmn/perfect/mean3/dodging", "")


def test_people_are_counted_on_both_sides_of_eligible_pairs() -> None:
    run = run_of(GOOD)
    assert {goal: case.people for goal, case in cases(run).items()} == {"dodging": 100, "impersonation": 200}
    assert {goal: case.people for goal, case in cases(run_of(GOOD, people=7)).items()} == {
        "dodging": 7,
        "impersonation": 7,
    }
    small = run_of(GOOD, pairs=3, wrong=[2])
    names = {"probe_people": "aab" + "acd", "reference_people": "aab" + "bae"}
    found = cases(with_faces(small, **names))
    assert (found["dodging"].people, found["impersonation"].people) == (1, 5), "a; a, b, c, d and e"


def test_people_without_a_name_are_not_counted_but_only_where_they_matter() -> None:
    assert {case.people for case in cases(run_of(GOOD, people=0)).values()} == {None}
    run = run_of(GOOD, pairs=3, wrong=[2])
    names = {"probe_people": ["a", "b", "", "c", "d", "e"], "reference_people": ["a", "b", "", "f", "", "g"]}
    found = cases(with_faces(run, **names))
    assert (found["dodging"].people, found["impersonation"].people) == (2, None)


def of_group(run: Run) -> Run:
    """The impostor pairs of a run as a search in a group."""
    a = run.assessment
    scenarios = tuple(replace(s, goal="group") for s in a.scenarios if s.goal == "impersonation")
    faces = replace(run.faces, reference_people=("",) * len(run.pairs), reference_crops=("",) * len(run.pairs))
    outcomes = tuple(replace(o, eligible=o.eligible & ~run.genuine) for o in run.outcomes)
    return replace(run, assessment=replace(a, group=5, scenarios=scenarios), faces=faces, outcomes=outcomes)


def test_a_search_in_a_group_is_a_goal_of_its_own() -> None:
    pairs, group = run_of(fell(MINIMAL, impersonated=7)), of_group(run_of(fell(MINIMAL, impersonated=7), copies=5))
    assert goals_of(pairs, POLICY) == ["dodging", "impersonation"]
    assert goals_of(group, POLICY) == ["dodging", "group"]
    assert (goal_pairs(group, "group") == goal_pairs(group, "impersonation")).all()
    found = cases(group)["group"]
    assert found.within == Rate(2, 20), "the same probe is the same search"
    assert found.people == 100, "the people of the probes"
    assert found.by == (("deepfool/perfect/mean3/group", 7),)
    assert goals_of(pairs, replace(POLICY, goals={"group": POLICY.goals["group"]})) == []


def test_the_worst_comes_first() -> None:
    """By the bound times the harm: 20 of 100 times 9 before 40 of 100 times 4."""
    run = run_of(fell(MINIMAL, dodged=30, impersonated=20))
    order = [case.goal for case in worst_cases(run, POLICY, rate(run, POLICY).findings, ["mean3"])]
    assert order == ["impersonation", "dodging"]
    more = run_of(fell(MINIMAL, dodged=80, impersonated=20))
    order = [case.goal for case in worst_cases(more, POLICY, rate(more, POLICY).findings, ["mean3"])]
    assert order == ["dodging", "impersonation"]
    profiles = ["none", "mean3"]
    both = run_of([*GOOD, *(replace(told, profile="none") for told in fell(MINIMAL, dodged=9, impersonated=9))])
    found = worst_cases(both, POLICY, rate(both, POLICY).findings, profiles)
    assert [(c.profile, c.goal) for c in found] == [
        ("none", "impersonation"), ("none", "dodging"), ("mean3", "impersonation"), ("mean3", "dodging"),
    ]  # fmt: skip


def test_each_class_of_attacks_has_met_the_profile_or_not_and_why() -> None:
    run = run_of([replace(BUDGETED, knowledge="zero"), BUDGETED], attacks=with_attack("apgd", epsilon=8 / 255))
    why = "apgd: its ball reaches RMS 8/255, beyond RMS <= 2.15/255"
    nobody = "no such attack was run"
    assert cases(run)["dodging"].met == (
        Met("minimal", "", nobody),
        Met("budgeted", "", why),
        Met("query", "", nobody),
        Met("transfer", "", why),
    )
    # One that is evidence is enough, whatever others there are.
    both = run_of([Told("pgd", "perfect", "mean3"), *GOOD])
    assert cases(both)["dodging"].met == (
        Met("minimal", "deepfool/perfect/mean3/dodging", ""),
        Met("budgeted", "apgd/perfect/mean3/dodging", ""),
        Met("query", "square/query/mean3/dodging", ""),
        Met("transfer", "apgd/zero/mean3/dodging", ""),
    )


def test_what_was_not_tested_is_unknown() -> None:
    unknown = {"dodging": "unknown", "impersonation": "unknown"}

    def severities(run: Run, policy: Policy = POLICY, **others: str) -> dict[str, str]:
        return {goal: case.severity for goal, case in cases(run, policy, **others).items()}

    assert severities(run_of(GOOD)) == {"dodging": "low", "impersonation": "medium"}
    assert severities(run_of([])) == unknown
    assert severities(run_of(GOOD), profile="none") == unknown
    assert severities(run_of(GOOD, eligible=0)) == unknown
    assert severities(run_of(GOOD, pairs=20)) == unknown
    assert severities(run_of(GOOD, copies=50))["dodging"] == "unknown", "these are two pairs"
    # Enough pairs, but nobody whom the policy counts attacked them.
    white = run_of([MINIMAL, BUDGETED])
    assert severities(white, replace(POLICY, knowledge=("query",))) == unknown
    for gone in GOOD:
        assert severities(run_of([told for told in GOOD if told != gone]))["dodging"] == "unknown", gone


def test_a_worst_case_is_never_less_severe_than_its_findings_and_high_where_all_fell() -> None:
    for dodged in range(0, PAIRS + 1, 10):
        run = run_of(fell(TRANSFER, dodged=dodged))
        findings = [f.severity for f in rate(run, POLICY).findings if f.goal == "dodging"]
        assert SEVERITIES.index(cases(run)["dodging"].severity) >= max(map(SEVERITIES.index, findings))
    # No attack alone gets all of them.
    run = with_successes(with_successes(run_of(GOOD), 0, range(50)), 1, range(50, 100))
    assert {f.severity for f in rate(run, POLICY).findings if f.goal == "dodging" and f.within.successes} == {"medium"}
    assert cases(run)["dodging"].severity == "high"
    few = run_of(fell(MINIMAL, dodged=3), pairs=3)
    assert cases(few)["dodging"].severity == "high", "of three pairs too"


def test_ids_tell_what_the_attacker_believes() -> None:
    run = run_of([Told("apgd", "partial", "mean3", known="n2c"), MINIMAL])
    assert [finding_id(o, "dodging") for o in run.outcomes] == [
        "apgd/knows-n2c/mean3/dodging",
        "deepfool/perfect/mean3/dodging",
    ]
    assert {finding_id(s, s.goal) for s in run.assessment.scenarios} == {f.id for f in rate(run, POLICY).findings}


def test_a_run_without_pairs_is_unknown() -> None:
    run = run_of(GOOD, eligible=0)
    empty = PairFaces(*((),) * 5)
    assert len(distinct_pairs(replace(run, faces=empty))) == 0
    case = cases(run)["dodging"]
    assert (case.within, case.bound, case.people, case.median, case.by) == (Rate(0, 0), 1.0, 0, None, ())


def test_a_random_profile_may_meet_the_same_probe_as_often_as_the_policy_allows() -> None:
    run = run_of(GOOD)
    first_hit = np.zeros(len(run.pairs), np.int64)
    first_hit[:6] = [1, 2, 3, 3, 4, 10]
    outcomes = replace(
        run.outcomes[0], presented=10, success=first_hit == 1, first_hit=first_hit, hits=np.sign(first_hit)
    )
    run = replace(run, outcomes=(outcomes, *run.outcomes[1:]))
    for tries, fallen_pairs in ((1, 1), (2, 2), (3, 4), (10, 6)):
        assert cases(run, replace(POLICY, tries=tries))["dodging"].within == Rate(fallen_pairs, PAIRS)
