"""Rating: the risk of every scenario of a run, of its worst cases and of its clean errors, under a policy.

The likelihood is 9 times the one-sided exact 95 % upper bound of the attack success rate within the policy's budget,
times a weight for the access that the attack needs. If there is too little evidence, the risk is `unknown`, not low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.plan import Goal
from toolkit.audit.results.assessment import Assessment, DeclaredAttack, ScenarioResult, declared_attack
from toolkit.audit.results.outcomes import PairOutcomes, Run
from toolkit.audit.results.suspicions import suspicions
from toolkit.errors import InputError
from toolkit.pixels import Bools
from toolkit.risk.certified import certified
from toolkit.risk.evidence import FIX_CHECK, doubted, evidence_class, no_evidence
from toolkit.risk.findings import SEVERITIES, CleanError, Finding, Risk, Severity, Term
from toolkit.risk.headline import headline, missing_adaptive, next_steps
from toolkit.risk.policy import QUERIES, Policy
from toolkit.risk.references import references
from toolkit.risk.scale import HIGHEST, rated, severity, worst_of
from toolkit.risk.worst import distinct_pairs, finding_id, goal_pairs, worst_cases
from toolkit.statistics.intervals import Rate

_DONE = {
    "dodging": "evades recognition",
    "impersonation": "impersonates somebody else",
    "group": "impersonates an enrolled person",
}


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
    numbers = distinct_pairs(run)
    findings = [_finding(run, s, by_key[s.attack, s.known, s.profile], policy, numbers) for s in a.scenarios]
    findings.sort(key=_worst_first)
    profiles = deployed_profiles(a, policy, chosen)
    clean = clean_errors(run, policy, profiles)
    worst = worst_cases(run, policy, findings, profiles)
    standings = tuple((name, _standing(a, name, findings)) for name in names)
    known = dict(standings)
    overall = worst_of(
        [
            *(known.get(name, "unknown") for name in profiles),
            *(w.severity for w in worst),
            *_clean_severities(clean, policy),
        ]
    )
    warnings = tuple(one.text for one in suspicions(run))
    risk = Risk(
        policy=policy.name,
        policy_sha256=policy.sha256,
        use_case=policy.use_case,
        budget=policy.within,
        severity=overall,
        headline="",
        worst=worst,
        clean=clean,
        warnings=warnings,
        findings=tuple(findings),
        next_steps=(),
        profiles=profiles,
        standings=standings,
    )
    return replace(risk, headline=headline(a, risk, policy), next_steps=next_steps(a, risk))


def _worst_first(f: Finding) -> tuple[object, ...]:
    """Findings that show something come before findings that only show too little."""
    return (-SEVERITIES.index(f.severity), -f.within.lower_bound() * f.impact, -f.likelihood * f.impact, f.id)


def clean_errors(run: Run, policy: Policy, profiles: Sequence[str]) -> tuple[CleanError, ...]:
    """The clean errors of the deployed profiles, with the policy's limits."""
    errors = [
        error
        for c in run.assessment.clean
        if c.profile in profiles
        for error in (
            CleanError(c.profile, "fmr", c.fmr, c.fmr.upper_bound(), policy.max_fmr),
            CleanError(c.profile, "fnmr", c.fnmr, c.fnmr.upper_bound(), policy.max_fnmr),
        )
    ]
    # A group has impostors only.
    return tuple(error for error in errors if error.rate.trials or run.assessment.group is None)


def _clean_severities(clean: Sequence[CleanError], policy: Policy) -> list[Severity]:
    """A clean error beyond the policy needs no attack at all, so it is at least high."""
    goal: dict[str, Goal] = {"fmr": "impersonation", "fnmr": "dodging"}
    return [
        worst_of(["high", severity(HIGHEST * c.bound, policy.required(goal[c.kind]).impact)]) for c in clean if c.beyond
    ]


def _standing(a: Assessment, profile: str, findings: Sequence[Finding]) -> Severity:
    mine: list[Severity] = [f.severity for f in findings if f.profile == profile]
    return worst_of([*mine, "unknown"] if missing_adaptive(a, profile) else mine)


def _finding(run: Run, s: ScenarioResult, outcomes: PairOutcomes, policy: Policy, numbers: NDArray[np.intp]) -> Finding:
    attack = declared_attack(run.assessment, s.attack)
    worn = attack.traits.masked
    pairs = goal_pairs(run, s.goal)
    success = outcomes.within(policy.norm, policy.budget, worn=worn, tries=policy.tries) & pairs
    eligible = int((outcomes.eligible & pairs).sum())
    required = policy.required(s.goal)
    why_not = no_evidence(run.assessment, s, attack, policy)
    certificates, backing = certified(run, policy, s.profile, pairs, numbers), None
    if why_not and certificates is not None and certificates.shows(required) and not worn:
        why_not, backing = "", certificates.uncertified
    tiers = []
    for rate, weight in _tiers(attack, s, success, outcomes, eligible, policy):
        counted = [rate] if backing is None else [rate, backing]
        found = worst_of([rated(one, weight.value, required, evidence=not why_not) for one in counted])
        tiers.append((found, rate, weight, max(one.upper_bound() for one in counted)))
    result, within, weight, bound = max(tiers, key=_worst_tier)
    budget = "at any perturbation size, because it is worn" if worn else f"within {policy.within}"
    if s.presented > 1:
        budget += ", at the first try" if policy.tries == 1 else f", in at most {policy.tries} tries"
    counts = f"{within.successes}/{within.trials} {budget}"
    if backing is not None and bound > within.upper_bound():
        counts = f"{backing.successes}/{backing.trials} without a certificate over {policy.within}"
    return Finding(
        id=finding_id(s, s.goal),
        attack=s.attack,
        knowledge=s.knowledge,
        known=s.known,
        profile=s.profile,
        goal=s.goal,
        within=within,
        bound=bound,
        likelihood=HIGHEST * bound * weight.value,
        impact=required.impact,
        severity=result,
        terms=(
            Term("bound", bound, f"95 % upper bound of {counts}"),
            weight,
            Term("impact", required.impact, f"{s.goal} in {policy.use_case}"),
        ),
        evidence=evidence_class(attack, s.knowledge),
        no_evidence=why_not,
        meaning=_meaning(s, within, budget),
        advice=_advice(s, within, why_not, worn=worn, trusted=result != "unknown", fails=doubted(run.assessment, s)),
        references=references(s, attack),
    )


def _worst_tier(tier: tuple[Severity, Rate, Term, float]) -> tuple[float, ...]:
    found, within, weight, bound = tier
    return SEVERITIES.index(found), within.successes > 0, bound * weight.value, within.successes


def _tiers(
    attack: DeclaredAttack, s: ScenarioResult, success: Bools, outcomes: PairOutcomes, eligible: int, policy: Policy
) -> list[tuple[Rate, Term]]:
    """The success rates by the access that they need, with their weights.

    With fewer queries, fewer attacks succeed, but more attackers have that access.
    """
    if s.knowledge != "query":
        weight = Term("access", policy.access[s.knowledge], _ACCESS_WORDS[s.knowledge])
        return [(Rate(int(success.sum()), eligible), weight)]
    most = np.inf if attack.traits.budget is None else float(attack.traits.budget)
    tiers = []
    for queries, key in QUERIES:
        within = Rate(int((success & (outcomes.queries <= queries)).sum()), eligible)
        asked = min(queries, most)
        words = f"at most {asked:,.0f} queries" if np.isfinite(asked) else "more than 10,000 queries"
        tiers.append((within, Term("access", policy.access[key], words)))
        if most <= queries:
            break
    return tiers


_ACCESS_WORDS = {
    "zero": "needs only the bare verifier",
    "partial": "needs a profile other than the deployed one",
    "perfect": "needs the original model and the deployed profile",
}


def _meaning(s: ScenarioResult, within: Rate, budget: str) -> str:
    who = {
        "zero": "An attacker who has the bare verifier, but does not know the profile,",
        "partial": f"An attacker who believes that the profile is {s.known}",
        "perfect": "An attacker who has the original model and knows the profile",
        "query": "An attacker who can only query the deployed verifier",
    }[s.knowledge]
    return f"{who} {_DONE[s.goal]} in {within.successes} of {within.trials} pairs with {s.attack}, {budget}."


def _advice(s: ScenarioResult, within: Rate, why_not: str, *, worn: bool, trusted: bool, fails: bool) -> str:
    if not trusted and fails:
        return FIX_CHECK
    if not trusted and why_not:
        return "Audit with --suite strong: attacks that do not spend the budget cannot show a low risk."
    if not trusted:
        return "Audit with more pairs: so few cannot show a low risk."
    if not within.successes:
        return "No attack succeeded. More pairs would lower the upper bound. Audit again after every change."
    if worn:
        return "Add a human or liveness check that notices worn objects. Filters do not help against them."
    return {
        "zero": "Deploy a profile that stops this attack: sixpixels profiles select.",
        "partial": "Do not rely on a secret choice of filter. Deploy a profile that withstands attackers who know it.",
        "perfect": "Filters and detectors do not stop attackers who know them. Deploy a verifier or a profile with "
        "certificates, choose a stricter threshold, keep the original model secret, and require a second factor.",
        "query": "Limit the queries of each account and device, do not return scores, and watch for series of similar "
        "images.",
    }[s.knowledge]
