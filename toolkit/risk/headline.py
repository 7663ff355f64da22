"""The headline of a run: the worst truth first, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.audit.plan import ADAPTIVE, GOALS
from toolkit.audit.results.assessment import Assessment
from toolkit.risk.evidence import FIX_CHECK
from toolkit.risk.findings import CleanError, Finding, Risk, WorstCase
from toolkit.risk.policy import Policy

_FELL = {
    "dodging": "evade recognition",
    "impersonation": "are taken for somebody else",
    "group": "are taken for an enrolled person",
}
_NAMED = 3
_STEPS = 3


def headline(a: Assessment, risk: Risk, policy: Policy) -> str:
    """Say the worst truth first: clean errors, faults of the pairs, what is not shown, then the worst case.

    Args:
        a: the assessment.
        risk: its rating, without a headline.
        policy: the policy.
    """
    words = [_clean_words(error) for error in risk.clean if error.beyond]
    words += [f"{warning}." for warning in risk.warnings]
    if a.generated and not policy.generated_faces:
        words.append("The faces are generated, so the rates say nothing about real people.")
    if not a.valid:
        words.append("INVALID: a sanity check failed, so the attacks may be too weak to show the risk.")
    if not a.complete:
        words.append("INCOMPLETE: some attacks could not run.")
    unmet = [name for name in risk.profiles if missing_adaptive(a, name)]
    if unmet:
        words.append(f"NO ADAPTIVE ATTACK was run on {', '.join(unmet)}, so this run cannot show robustness.")
    words += _worst_words(risk)
    if risk.severity == "unknown":
        words.append("There is too little evidence to call the risk low.")
    return " ".join(words)


def missing_adaptive(a: Assessment, profile: str) -> list[str]:
    """The goals for which no attack that knows or queries the profile was run."""
    goals = GOALS if a.group is None else ("group",)
    met = {s.goal for s in a.scenarios if s.profile == profile and s.knowledge in ADAPTIVE}
    return [goal for goal in goals if goal not in met]


def worst_in_words(case: WorstCase, budget: str) -> str:
    """One worst case in a sentence, without a full stop."""
    if not case.within.trials:
        return f"through {case.profile}, no eligible pair was attacked for {case.goal}"
    counts = f"{case.within.successes} of {case.within.trials} pairs"
    bound = f"upper bound {100 * case.bound:.1f} %"
    if not case.by:
        return f"through {case.profile}, {counts} {_FELL[case.goal]} within {budget} ({bound})"
    names = ", ".join(f"{'/'.join(name.split('/')[:2])} {count}" for name, count in case.by[:_NAMED])
    more = f", and {len(case.by) - _NAMED} more" if len(case.by) > _NAMED else ""
    return f"through {case.profile}, {counts} {_FELL[case.goal]} within {budget} ({bound}): {names}{more}"


def certified_in_words(cases: Sequence[WorstCase], budget: str) -> list[str]:
    """What the certificates of the deployed profiles say about the budget, each without a full stop."""
    words = []
    for case in cases:
        if case.certified is None:
            continue
        found, about = case.certified, f"{case.profile}, {case.goal}"
        covered = f"{found.within.successes} of {found.within.trials} pairs cannot fall to any attack within {budget}"
        reach = f"certificates reach L2 {found.reach:.3g}, the budget L2 {found.radius:.3g}"
        words.append(f"{about}: {covered if found.within.successes else f'no certificate covers {budget}'} ({reach})")
    return words


def unmet_in_words(cases: Sequence[WorstCase], budget: str) -> list[str]:
    """The classes of attacks that are missing, and why, each once for all goals of a profile."""
    goals: dict[tuple[str, str, str], list[str]] = {}
    for case in cases:
        for met in case.unmet:
            goals.setdefault((case.profile, met.evidence, met.why_not), []).append(case.goal)
    return [
        f"{profile}, {' and '.join(of)}: no {evidence} attack that is evidence within {budget} ({why})"
        for (profile, evidence, why), of in goals.items()
    ]


def _clean_words(error: CleanError) -> str:
    counts = f"{error.rate.successes} of {error.rate.trials}"
    if error.kind == "fmr":
        what = f"{error.profile} ACCEPTS STRANGERS without any attack: {counts} impostor pairs"
    else:
        what = f"{error.profile} REFUSES ITS PEOPLE without any attack: {counts} genuine pairs"
    return f"{what} (the policy allows {100 * error.limit:g} %)."


def _worst_words(risk: Risk) -> list[str]:
    tested = [case for case in risk.worst if case.within.trials]
    fell = [case for case in tested if case.within.successes]
    words = [f"Worst: {worst_in_words(fell[0], risk.budget)}."] if fell else []
    if tested and not fell:
        cases = "; ".join(worst_in_words(case, risk.budget) for case in tested)
        words.append(f"Nothing fell within the budget: {cases}.")
    words += [f"Not tested: {worst_in_words(case, risk.budget)}." for case in risk.worst if not case.within.trials]
    covered = [case for case in risk.worst if case.certified is not None and case.certified.within.successes]
    words += [f"Certified: {text}." for text in certified_in_words(covered, risk.budget)]
    missing = dict.fromkeys(f"{case.profile} {met.evidence}" for case in risk.worst for met in case.unmet)
    if missing:
        words.append(f"NOT SHOWN, for lack of strong attacks within the budget: {', '.join(missing)}.")
    return words


def next_steps(a: Assessment, risk: Risk) -> tuple[str, ...]:
    """What to do, most useful first."""
    steps = []
    if any(error.beyond for error in risk.clean):
        steps.append("Fix the clean errors first: check crop, layout and threshold, or calibrate the threshold.")
    if not a.valid:
        steps.append(FIX_CHECK)
    if any(missing_adaptive(a, name) for name in risk.profiles):
        steps.append("Audit with --knowledge zero,perfect.")
    steps += _advice([f for f in risk.findings if f.profile in risk.profiles])
    missing = dict.fromkeys(met.evidence for case in risk.worst for met in case.unmet)
    if missing:
        steps.append(f"Audit with --suite strong, which spends the budget: {', '.join(missing)} attacks are missing.")
    return tuple(dict.fromkeys(steps))[:_STEPS]


def _advice(counted: Sequence[Finding]) -> list[str]:
    fell = [f for f in counted if f.within.successes] or counted
    return [f.advice for f in fell if f.severity != "note"]
