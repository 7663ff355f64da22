"""Regressions: whether a run is worse than a baseline, on the pairs that both have."""

from __future__ import annotations

from toolkit.audit.results.outcomes import Run
from toolkit.risk.findings import Reason, Risk
from toolkit.risk.paired import Change, attack_change, clean_changes, common_pairs
from toolkit.risk.policy import Policy
from toolkit.risk.worst import finding_id, goals_of
from toolkit.statistics.tests import LEVEL, holm, mcnemar_power, mcnemar_worse


def regressions(baseline: Run, run: Run, risk: Risk, policy: Policy) -> list[Reason]:
    """Compare the worst case and the clean errors of every deployed profile with a baseline.

    A change is tested with the exact one-sided McNemar test, with Holm's correction over all changes. If too few pairs
    are common to show the policy's smallest regression, this is a reason too: the run is not shown to be as good.

    Args:
        baseline: the earlier run.
        run: this run.
        risk: the rating of this run.
        policy: the policy.
    """
    here = {finding_id(s, s.goal) for s in run.assessment.scenarios}
    there = {finding_id(s, s.goal) for s in baseline.assessment.scenarios if s.profile in risk.profiles}
    missing = [_insufficient(f"{name} is in the baseline, but not in this run", name) for name in sorted(there - here)]
    other = _other_parameters(baseline, run) & there
    missing += [
        _insufficient(f"{name}: cannot be compared, because the attack had other parameters in the baseline", name)
        for name in sorted(other & here)
    ]
    missing += [
        _insufficient(f"{profile}, {goal}: the baseline has no attack on this profile to compare with")
        for profile in risk.profiles
        for goal in goals_of(run, policy)
        if not any(name.endswith(f"/{profile}/{goal}") for name in there)
    ]
    changes = _changes(baseline, run, risk, policy, (here & there) - other)
    p_values = holm([mcnemar_worse(change.only_second, change.only_first) for change in changes])
    return missing + [
        reason
        for change, p_value in zip(changes, p_values, strict=True)
        for reason in _judged(change, float(p_value), len(changes), policy)
    ]


def _judged(change: Change, p_value: float, changes: int, policy: Policy) -> list[Reason]:
    if p_value < LEVEL:
        text = (
            f"{change.name}: {change.only_second} of {change.pairs} pairs became worse than in the baseline, and "
            f"{change.only_first} became better (p = {p_value:.2g})"
        )
        return [Reason("regression", text)]
    power = mcnemar_power(change.pairs, policy.regression, LEVEL / changes)
    if power < policy.power:
        text = (
            f"{change.name}: {change.pairs} pairs in common with the baseline would show a regression of "
            f"{100 * policy.regression:g} % with a probability of only {100 * power:.0f} % (the policy asks for "
            f"{100 * policy.power:g} %); {change.only_second} became worse"
        )
        return [_insufficient(text)]
    return []


def _changes(baseline: Run, run: Run, risk: Risk, policy: Policy, findings: set[str]) -> list[Change]:
    runs, rows, changes = (baseline, run), common_pairs(baseline, run), []
    for profile in risk.profiles:
        for goal in goals_of(run, policy):
            counted = {name for name in findings if name.endswith(f"/{profile}/{goal}")}
            if counted:
                changes.append(attack_change(f"{profile}/{goal}", runs, rows, policy, profile, goal, counted))
    return changes + [c for c in clean_changes(runs, rows) if c.profile in risk.profiles and c.pairs]


def _other_parameters(baseline: Run, run: Run) -> set[str]:
    """Ids of this run's findings whose attack had other parameters in the baseline."""
    before = dict(baseline.assessment.attacks)
    changed = {name for name, parameters in run.assessment.attacks if before.get(name, parameters) != parameters}
    return {finding_id(s, s.goal) for s in run.assessment.scenarios if s.attack in changed}


def _insufficient(text: str, *findings: str) -> Reason:
    return Reason("baseline", text, findings, "insufficient")
