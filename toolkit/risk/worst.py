"""The worst case: a pair has fallen if any attack of the run got it within the policy's budget."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.plan import Goal
from toolkit.audit.results.assessment import ScenarioResult, declared_attack
from toolkit.audit.results.outcomes import PairOutcomes, Run
from toolkit.pixels import Bools
from toolkit.risk.certified import certified
from toolkit.risk.findings import CERTIFICATES, Finding, Met, WorstCase
from toolkit.risk.policy import LEAST_ACCESS, EvidenceClass, Policy
from toolkit.risk.scale import rated, worst_of
from toolkit.statistics.intervals import Rate


def goals_of(run: Run, policy: Policy) -> list[Goal]:
    """The goals of the policy that a run must show. Of a group, matching anybody stands for impersonation."""
    other = "impersonation" if run.assessment.group is not None else "group"
    return [goal for goal in policy.goals if goal != other]


def goal_pairs(run: Run, goal: str) -> Bools:
    """Whether each pair (n,) belongs to a goal."""
    return run.genuine if goal == "dodging" else ~run.genuine


def distinct_pairs(run: Run) -> NDArray[np.intp]:
    """Number the pairs (n,) by their crops, so that copies of a pair have the same number, in either order."""
    both = zip(run.faces.probe_crops, run.faces.reference_crops, strict=True)
    keys = [" ".join(sorted(pair)) for pair in both]
    return np.unique(np.array(keys, str), return_inverse=True)[1].astype(np.intp)


def worst_cases(
    run: Run, policy: Policy, findings: Sequence[Finding], profiles: Sequence[str], waived: Collection[str] = ()
) -> tuple[WorstCase, ...]:
    """Combine all attacks on each deployed profile, for each goal of the policy, worst first.

    Args:
        run: the run.
        policy: the policy.
        findings: all findings of the run under this policy.
        profiles: names of the deployed profiles.
        waived: ids of findings whose successes do not count, because somebody accepts them.
    """
    numbers = distinct_pairs(run)
    cases = []
    for profile in profiles:
        for goal in goals_of(run, policy):
            tested = [f for f in findings if (f.profile, f.goal) == (profile, goal) and f.knowledge in policy.knowledge]
            cases.append(_worst_case(run, policy, profile, goal, tested, waived, numbers))
    return tuple(
        sorted(cases, key=lambda case: (-case.bound * policy.goals[case.goal].impact, case.profile, case.goal))
    )


def fallen(
    run: Run, policy: Policy, profile: str, goal: str, findings: Collection[str]
) -> tuple[Bools, Bools, NDArray[np.float64]]:
    """What fell to any of some findings, for each pair (n,).

    Args:
        run: the run.
        policy: the policy, whose budget counts.
        profile: the deployed profile.
        goal: the attacker's goal.
        findings: ids of the findings that count.

    Returns:
        Whether the pair is eligible, whether it fell, and its smallest perturbation in the policy's norm.
    """
    pairs = goal_pairs(run, goal)
    mine = [o for o in run.outcomes if o.profile == profile]
    eligible = mine[0].eligible & pairs if mine else np.zeros(len(pairs), np.bool_)
    fell, smallest = np.zeros(len(pairs), np.bool_), np.full(len(pairs), np.inf)
    for outcomes in mine:
        if finding_id(outcomes, goal) in findings:
            worn = declared_attack(run.assessment, outcomes.attack).traits.masked
            got = outcomes.within(policy.norm, policy.budget, worn=worn, tries=policy.tries) & eligible
            fell |= got
            smallest[got] = np.minimum(smallest, getattr(outcomes, policy.norm))[got]
    return eligible, fell, smallest


def finding_id(s: PairOutcomes | ScenarioResult, goal: str) -> str:
    """The id of a finding, which is the same in every run."""
    knows = f"knows-{s.known}" if s.knowledge == "partial" else s.knowledge
    return f"{s.attack}/{knows}/{s.profile}/{goal}"


def _worst_case(
    run: Run,
    policy: Policy,
    profile: str,
    goal: Goal,
    tested: Sequence[Finding],
    waived: Collection[str],
    numbers: NDArray[np.intp],
) -> WorstCase:
    counted = [f for f in tested if f.id not in waived]
    eligible, fell, smallest = fallen(run, policy, profile, goal, {f.id for f in counted})
    within = Rate(len(np.unique(numbers[fell])), len(np.unique(numbers[eligible])))
    by = sorted(((f.id, f.within.successes) for f in counted if f.within.successes), key=lambda one: -one[1])
    required = policy.goals[goal]
    certificates = certified(run, policy, profile, goal_pairs(run, goal), numbers)
    shown = certificates is not None and certificates.shows(required)
    met = tuple(_met(kind, counted, tested, certified=shown and kind != "worn") for kind in required.evidence)
    own = [rated(within, LEAST_ACCESS, required, evidence=all(one.finding for one in met))]
    if certificates is not None and any(one.finding == CERTIFICATES for one in met):
        own.append(rated(certificates.uncertified, LEAST_ACCESS, required, evidence=True))
    return WorstCase(
        profile=profile,
        goal=goal,
        within=within,
        bound=within.upper_bound(),
        people=_people(run, eligible),
        median=float(np.median(smallest[fell])) if fell.any() else None,
        by=tuple(by),
        met=met,
        certified=certificates,
        severity=worst_of([*(f.severity for f in counted), *own]),
    )


def _people(run: Run, pairs: Bools) -> int | None:
    """The number of people in some pairs; None if a pair does not name them."""
    sides = [run.faces.probe_people] + ([run.faces.reference_people] if run.assessment.group is None else [])
    names = {people[i] for people in sides for i in np.flatnonzero(pairs)}
    return None if "" in names else len(names)


def _met(kind: EvidenceClass, counted: Sequence[Finding], tested: Sequence[Finding], *, certified: bool) -> Met:
    # A waived finding was tested, but findings that still count say more.
    of_kind = [f for f in (*counted, *tested) if f.evidence == kind]
    shows = next((f for f in of_kind if not f.no_evidence), None)
    if shows is not None:
        return Met(kind, shows.id, "")
    if certified:
        return Met(kind, CERTIFICATES, "")
    why = f"{of_kind[0].attack}: {of_kind[0].no_evidence}" if of_kind else "no such attack was run"
    return Met(kind, "", why)
