"""Rating: the risk of every scenario of a run, from likelihood and impact as in the OWASP risk rating.

The likelihood is 9 times the one-sided exact 95 % upper bound of the attack success rate within the policy's budget,
times a weight for the access that the attack needs. If there is too little evidence, the risk is `unknown`, not low.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from toolkit.audit.plan import ADAPTIVE, GOALS
from toolkit.audit.results.assessment import Assessment, DeclaredAttack, ScenarioResult, declared_attack
from toolkit.audit.results.outcomes import PairOutcomes, Run
from toolkit.errors import InputError
from toolkit.pixels import Bools
from toolkit.risk.findings import SEVERITIES, Finding, Reference, Risk, Severity, Term
from toolkit.risk.policy import QUERIES, Policy
from toolkit.statistics.intervals import Rate

Level = Literal["low", "medium", "high"]
# OWASP risk rating methodology: levels from 0 to 9, and the severity by likelihood (outer key) and impact (inner key).
_LOW, _MEDIUM, _HIGHEST = 3.0, 6.0, 9.0
_MATRIX: dict[Level, dict[Level, Severity]] = {
    "low": {"low": "note", "medium": "low", "high": "medium"},
    "medium": {"low": "low", "medium": "medium", "high": "high"},
    "high": {"low": "medium", "medium": "high", "high": "critical"},
}
_ATLAS, _NIST = "MITRE ATLAS 5.6", "NIST AI 100-2e2025"
_DONE = {
    "dodging": "evades recognition",
    "impersonation": "impersonates somebody else",
    "group": "impersonates an enrolled person",
}
_OUTCOME = {
    "dodging": Reference(_ATLAS, "AML.T0015", "Evade AI Model"),
    "impersonation": Reference(_ATLAS, "AML.T0073", "Impersonation"),
    "group": Reference(_ATLAS, "AML.T0073", "Impersonation"),
}
_ALWAYS = (
    Reference("OWASP", "ML01:2023", "Input Manipulation Attack"),
    Reference("CWE", "CWE-1039", "Inadequate Detection or Handling of Adversarial Input Perturbations"),
)
_WHITE = (
    Reference(_ATLAS, "AML.T0043.000", "White-Box Optimization"),
    Reference(_ATLAS, "AML.T0044", "Full AI Model Access"),
    Reference(_NIST, "white-box evasion", "Evasion with full knowledge"),
)
_QUERY = (
    Reference(_ATLAS, "AML.T0043.001", "Black-Box Optimization"),
    Reference(_ATLAS, "AML.T0040", "AI Model Inference API Access"),
    Reference(_NIST, "black-box evasion", "Evasion by queries"),
)
_TRANSFER = (
    Reference(_ATLAS, "AML.T0043.002", "Black-Box Transfer"),
    Reference(_ATLAS, "AML.T0005", "Create Proxy AI Model"),
    Reference(_NIST, "gray-box evasion", "Evasion by transferability"),
)
_NOISE = Reference(_ATLAS, "AML.T0043.003", "Manual Modification")
_WORN = Reference(_ATLAS, "AML.T0041", "Physical Environment Access")


def level(value: float) -> Level:
    """The level of a likelihood or an impact from 0 to 9: below 3 is low, below 6 medium, else high."""
    return "low" if value < _LOW else "medium" if value < _MEDIUM else "high"


def severity(likelihood: float, impact: float) -> Severity:
    """The severity of a likelihood and an impact, by the OWASP matrix."""
    return _MATRIX[level(likelihood)][level(impact)]


def worst_of(severities: Sequence[Severity]) -> Severity:
    """The worst of several severities; `unknown` if there are none."""
    return max(severities, key=SEVERITIES.index, default="unknown")


def enough(trials: int, policy: Policy) -> bool:
    """Whether `trials` pairs without a success would show an ASR below the policy's `provable_asr`."""
    return Rate(0, trials).upper_bound() <= policy.provable_asr


def deployed_profiles(assessment: Assessment, policy: Policy, chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """The deployed profiles: those in `chosen`, or those that the policy names, or all but the bare verifier."""
    if chosen or policy.profiles:
        return tuple(chosen) or policy.profiles
    names = [name for name, _ in assessment.profiles]
    return tuple(name for name in names if name != "none") or tuple(names)


def rate(run: Run, policy: Policy, chosen: Sequence[str] = ()) -> Risk:
    """Rate every scenario of a finished run.

    Args:
        run: the run.
        policy: the policy.
        chosen: names of the deployed profiles. Default: those that the policy names.

    Raises:
        InputError: two profiles of the run have the same name.
    """
    a = run.assessment
    names = [name for name, _ in a.profiles]
    if len(set(names)) < len(names):
        raise InputError(f"run {a.run}: two of its profiles have the same name; rename one and audit again")
    by_key = {(o.attack, o.known, o.profile): o for o in run.outcomes}
    findings = [_finding(run, s, by_key[s.attack, s.known, s.profile], policy) for s in a.scenarios]
    findings.sort(key=lambda f: (-SEVERITIES.index(f.severity), -f.likelihood * f.impact, f.id))
    standings = tuple((name, _standing(a, name, findings)) for name, _ in a.profiles)
    profiles = deployed_profiles(a, policy, chosen)
    known = dict(standings)
    overall = worst_of([known.get(name, "unknown") for name in profiles])
    counted = [f for f in findings if f.profile in profiles]
    return Risk(
        policy=policy.name,
        policy_sha256=policy.sha256,
        use_case=policy.use_case,
        budget=policy.within,
        severity=overall,
        headline=_headline(a, overall, counted, profiles),
        findings=tuple(findings),
        next_steps=_next_steps(a, counted, profiles),
        profiles=profiles,
        standings=standings,
    )


def missing_adaptive(assessment: Assessment, profile: str) -> list[str]:
    """The goals for which no attack that knows or queries the profile was run."""
    goals = GOALS if assessment.group is None else ("group",)
    met = {s.goal for s in assessment.scenarios if s.profile == profile and s.knowledge in ADAPTIVE}
    return [goal for goal in goals if goal not in met]


def _standing(a: Assessment, profile: str, findings: Sequence[Finding]) -> Severity:
    mine: list[Severity] = [f.severity for f in findings if f.profile == profile]
    return worst_of([*mine, "unknown"] if missing_adaptive(a, profile) else mine)


def goal_pairs(run: Run, goal: str) -> Bools:
    """Whether each pair (n,) belongs to a goal."""
    return run.genuine if goal == "dodging" else ~run.genuine


def successes_within(outcomes: PairOutcomes, policy: Policy, *, worn: bool) -> Bools:
    """Successes (n,) with a perturbation within the budget. If the perturbation is worn, any size counts."""
    return outcomes.success & (worn | (getattr(outcomes, policy.norm) <= policy.budget))


def finding_id(s: ScenarioResult) -> str:
    """The id of a scenario's finding, which is the same in every run."""
    knows = f"knows-{s.known}" if s.knowledge == "partial" else s.knowledge
    return f"{s.attack}/{knows}/{s.profile}/{s.goal}"


def _finding(run: Run, s: ScenarioResult, outcomes: PairOutcomes, policy: Policy) -> Finding:
    attack = declared_attack(run.assessment, s.attack)
    worn = attack.traits.masked
    pairs = goal_pairs(run, s.goal)
    success = successes_within(outcomes, policy, worn=worn) & pairs
    eligible = int((outcomes.eligible & pairs).sum())
    within, weight = _weighed(attack, s, success, outcomes, eligible, policy)
    impact = policy.impact[s.goal]
    likelihood = _HIGHEST * within.upper_bound() * weight.value
    result = severity(likelihood, impact)
    if not enough(eligible, policy) or _doubted(run.assessment, s):
        # Weak evidence cannot show a low risk, but observed successes can show a high one.
        seen = severity(_HIGHEST * within.lower_bound() * weight.value, impact)
        result = worst_of([seen, "unknown"])
    budget = "at any perturbation size, because it is worn" if worn else f"within {policy.within}"
    bound = Term("bound", within.upper_bound(), f"95 % upper bound of {within.successes}/{within.trials} {budget}")
    return Finding(
        id=finding_id(s),
        attack=s.attack,
        knowledge=s.knowledge,
        known=s.known,
        profile=s.profile,
        goal=s.goal,
        within=within,
        bound=within.upper_bound(),
        likelihood=likelihood,
        impact=impact,
        severity=result,
        terms=(bound, weight, Term("impact", impact, f"{s.goal} in {policy.use_case}")),
        meaning=_meaning(s, within, budget),
        advice=_advice(s, within, worn=worn, trusted=result != "unknown"),
        references=_references(s, attack),
    )


def _weighed(
    attack: DeclaredAttack, s: ScenarioResult, success: Bools, outcomes: PairOutcomes, eligible: int, policy: Policy
) -> tuple[Rate, Term]:
    """The success rate that gives the highest likelihood, and its weight.

    With fewer queries, fewer attacks succeed, but more attackers have that access.
    """
    rate_of_all = Rate(int(success.sum()), eligible)
    if s.knowledge != "query":
        return rate_of_all, Term("access", policy.access[s.knowledge], _ACCESS_WORDS[s.knowledge])
    most = np.inf if attack.traits.budget is None else float(attack.traits.budget)
    tiers = []
    for queries, key in QUERIES:
        within = Rate(int((success & (outcomes.queries <= queries)).sum()), eligible)
        asked = min(queries, most)
        words = f"at most {asked:,.0f} queries" if np.isfinite(asked) else "more than 10,000 queries"
        tiers.append((within, Term("access", policy.access[key], words)))
        if most <= queries:
            break
    return max(tiers, key=lambda tier: (tier[0].upper_bound() * tier[1].value, tier[0].successes))


_ACCESS_WORDS = {
    "zero": "needs only the bare verifier",
    "partial": "needs a profile other than the deployed one",
    "perfect": "needs the original model and the deployed profile",
}


def _doubted(a: Assessment, s: ScenarioResult) -> bool:
    """Whether a sanity check of the deployed profile, or of the profile that the attacker knows, failed."""
    failed = [c.about for c in a.checks if not c.passed]
    return any(f" on {about}".endswith((f" on {s.profile}", f" on {s.known}")) for about in failed)


def _meaning(s: ScenarioResult, within: Rate, budget: str) -> str:
    who = {
        "zero": "An attacker who has the bare verifier, but does not know the profile,",
        "partial": f"An attacker who believes that the profile is {s.known}",
        "perfect": "An attacker who has the original model and knows the profile",
        "query": "An attacker who can only query the deployed verifier",
    }[s.knowledge]
    return f"{who} {_DONE[s.goal]} in {within.successes} of {within.trials} pairs with {s.attack}, {budget}."


def _advice(s: ScenarioResult, within: Rate, *, worn: bool, trusted: bool) -> str:
    if not trusted:
        return "Audit with more pairs, and fix failed sanity checks: this evidence cannot show a low risk."
    if not within.successes:
        return "No attack succeeded. More pairs would lower the upper bound. Audit again after every change."
    if worn:
        return "Add a human or liveness check that notices worn objects. Filters do not help against them."
    return {
        "zero": "Deploy a profile that stops this attack: sixpixels profiles select.",
        "partial": "Do not rely on a secret choice of filter. Deploy a profile that withstands attackers who know it.",
        "perfect": "Filters do not stop attackers who know them. Add a detector, choose a stricter threshold, keep the "
        "original model secret, and require a second factor.",
        "query": "Limit the queries of each account and device, do not return scores, and watch for series of similar "
        "images.",
    }[s.knowledge]


def _references(s: ScenarioResult, attack: DeclaredAttack) -> tuple[Reference, ...]:
    noise = attack.needs == "runtime" and attack.traits.budget is None
    how = {"perfect": _WHITE, "query": _QUERY}.get(s.knowledge, _TRANSFER)
    if noise:
        how = (_NOISE, *how[1:])
    return (*how, *((_WORN,) if attack.traits.masked else ()), _OUTCOME[s.goal], *_ALWAYS)


def _headline(a: Assessment, overall: Severity, counted: Sequence[Finding], profiles: Sequence[str]) -> str:
    words = []
    if not a.valid:
        words.append("INVALID: a sanity check failed, so the attacks may be too weak to show the risk.")
    if not a.complete:
        words.append("INCOMPLETE: some attacks could not run.")
    unmet = [name for name in profiles if missing_adaptive(a, name)]
    if unmet:
        words.append(f"NO ADAPTIVE ATTACK was run on {', '.join(unmet)}, so this run cannot show robustness.")
    if overall == "unknown":
        words.append("There is too little evidence to call the risk low.")
    if counted:
        words.append(f"Worst: {counted[0].meaning}")
    return " ".join(words)


def _next_steps(a: Assessment, counted: Sequence[Finding], profiles: Sequence[str]) -> tuple[str, ...]:
    steps = []
    if not a.valid:
        steps.append("Fix the cause of the failed sanity check, and audit again.")
    if any(missing_adaptive(a, name) for name in profiles):
        steps.append("Audit with --knowledge zero,perfect.")
    fell = [f for f in counted if f.within.successes] or counted
    steps += [f.advice for f in fell if f.severity != "note"]
    return tuple(dict.fromkeys(steps))[:3]
