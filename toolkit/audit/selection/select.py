"""Selection: recommends one profile of a finished audit within an operator's limits, with the evidence for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from toolkit.audit.plan import GOALS, Goal
from toolkit.audit.selection.added import Added, Verdict, added_costs, norm_signs, norm_verdict
from toolkit.audit.selection.candidates import BARE, Candidate
from toolkit.audit.suites import BUDGET
from toolkit.errors import InsufficientError
from toolkit.pixels import Bools
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import FEWEST_PAIRS, LEVEL, holm, mcnemar

GoalOrAny = Literal["dodging", "impersonation", "any"]
WANTED: tuple[GoalOrAny, ...] = get_args(GoalOrAny)


@dataclass(frozen=True)
class Limits:
    """The limits that an operator sets. None means no limit. They apply to measured values, not to their bounds.

    Attributes:
        goal: the attacker's goal to defend against; `any` uses the worse of the two.
        max_fnmr: the largest clean FNMR, from 0 to 1.
        max_fmr: the largest clean FMR, from 0 to 1.
        max_latency_ratio: the largest ratio of the median latency of one crop to that of the bare verifier.
        budget: the largest RMS, in 1/255, of a success that counts. A worn perturbation counts at any size.
    """

    goal: GoalOrAny = "any"
    max_fnmr: float | None = None
    max_fmr: float | None = None
    max_latency_ratio: float | None = None
    budget: float = BUDGET


@dataclass(frozen=True)
class Standing:
    """One profile, rated for the recommendation.

    Attributes:
        profile: name of the profile.
        asr: for each relevant goal, the pairs on which at least one attack that knows the profile succeeds, over
            eligible pairs. An attacker may try all attacks, so that one success is enough.
            Without such an attack, the pairs whose certificate does not cover the budget, if there are certificates.
        upper: the largest one-sided exact 95 % upper bound of these rates; None if there was no such attack, and no
            certificate.
        strongest: the attack with the most successes; None if none succeeded.
        fnmr, fmr, latency_ratio: see `Candidate`.
        radius: the average certified L2 radius of the pairs that matter, 0 where the decision is wrong (Zhai et al.
            2020, arXiv:2001.02378, section 4); None without certificates of what is deployed.
        unfit: reasons why the evidence is too weak to recommend the profile.
        exceeded: the limits that the profile exceeds.
        front: whether the profile is on the Pareto front: no other fit profile is at least as good in the ASR's bound,
            the average certified radius, FNMR, FMR and latency, and better in one of them.
    """

    profile: str
    asr: tuple[tuple[Goal, Rate], ...]
    upper: float | None
    strongest: str | None
    fnmr: Rate
    fmr: Rate
    latency_ratio: float | None
    radius: float | None
    unfit: tuple[str, ...]
    exceeded: tuple[str, ...]
    front: bool = False


@dataclass(frozen=True)
class Claim:
    """Whether attacks succeed less often on `profile` than on `other`: exact McNemar test with Holm's correction.

    Attributes:
        profile, other: names of the two profiles.
        pairs: number of pairs that are eligible with both.
        fell: pairs on which attacks succeed only with `profile`.
        other_fell: pairs on which attacks succeed only with `other`.
        p_value, p_adjusted: before and after the correction over all claims.
        verdict: "better" if attacks succeed significantly less often on `profile`.
        larger, smaller: pairs that need a larger perturbation behind `profile` than behind `other`, and a smaller one.
        norms_p_value, norms_p_adjusted: of the sign test of these (see `Added`), corrected over all claims.
        norms: "better" if significantly more pairs need a larger perturbation behind `profile`.
    """

    profile: str
    other: str
    pairs: int
    fell: int
    other_fell: int
    p_value: float
    p_adjusted: float
    verdict: Verdict
    larger: int
    smaller: int
    norms_p_value: float
    norms_p_adjusted: float
    norms: Verdict


@dataclass(frozen=True)
class Selection:
    """The recommendation.

    Attributes:
        limits: the operator's limits.
        attacks: names of the attacks that know a profile.
        standings: all profiles.
        chosen: the recommended profile; None if `refused` says why there is none.
        refused: why no profile is recommended; "" if one is.
        nearest: the chosen profile, or the one that exceeds the limits least.
        claims: comparisons of `nearest` with the other fit profiles.
        added: what each fit profile adds to the attacker's cost; empty if the bare verifier is not among them.
        reasons: the evidence in words.
    """

    limits: Limits
    attacks: tuple[str, ...]
    standings: tuple[Standing, ...]
    chosen: str | None
    refused: str
    nearest: str
    claims: tuple[Claim, ...]
    added: tuple[Added, ...]
    reasons: tuple[str, ...]


def select(candidates: Sequence[Candidate], genuine: Bools, limits: Limits) -> Selection:
    """Recommend the profile with the smallest upper bound of the worst-case ASR, among those that meet the limits.

    A profile with a defense is recommended only if the data show that attacks succeed less often on it than on the bare
    verifier, where the run has it. The bare verifier itself is no recommendation. Larger perturbations are what a
    profile adds to the attacker's cost. Where the attacker can pay that within the budget, they recommend nothing.

    The larger average certified radius, then the smaller FNMR, FMR and latency break ties. A profile is unfit for a
    recommendation if no attack in the run knows it and it has no certificates; if fewer attacks know it than know
    another profile; if a sanity check failed on it; if it has fewer than
    `FEWEST_PAIRS` eligible pairs; or if there are too few clean pairs to show a limit even without errors.

    Args:
        candidates: the profiles of one run, on the same n pairs.
        genuine: (n,), whether each pair is of one person.
        limits: the operator's limits.

    Raises:
        InsufficientError: all profiles are unfit.
    """
    attacks = tuple(dict.fromkeys(name for c in candidates for name in c.successes))
    standings = [_standing(c, attacks, genuine, limits) for c in candidates]
    fit = [s for s in standings if not s.unfit]
    if not fit:
        raise InsufficientError(
            "no profile can be recommended: " + "; ".join(f"{s.profile}: {', '.join(s.unfit)}" for s in standings)
        )
    standings = [replace(s, front=s in fit and not any(_dominates(o, s) for o in fit)) for s in standings]
    fit = [s for s in standings if not s.unfit]
    within = [s for s in fit if not s.exceeded]
    best = min(within, key=_rank) if within else min(fit, key=lambda s: (_excess(s, limits), _rank(s)))
    compared = [c for c in candidates if any(s.profile == c.profile for s in fit)]
    matters = _matters(genuine, _goals(limits.goal))
    claims = _claims(best.profile, compared, matters)
    refused = _refused(best, claims, limits, compared=any(c.profile == BARE for c in candidates))
    return Selection(
        limits,
        attacks,
        tuple(standings),
        None if refused else best.profile,
        refused,
        best.profile,
        claims,
        added_costs(compared, matters, limits.budget),
        _reasons(best, claims, limits, attacked=any(c.profile == best.profile and c.successes for c in candidates)),
    )


def check_chosen(selection: Selection) -> None:
    """Check that a selection recommends a profile.

    Raises:
        InsufficientError: no profile meets the limits, or is shown to be better than the bare verifier.
    """
    if selection.refused:
        raise InsufficientError(selection.refused)


def _refused(best: Standing, claims: Sequence[Claim], limits: Limits, *, compared: bool) -> str:
    """Why the best profile is not recommended; "" if it is."""
    if best.exceeded:
        return f"no profile meets the limits; the nearest is {best.profile}: {', '.join(best.exceeded)}"
    fell = ", ".join(f"{goal}: {rate.successes} of {rate.trials} pairs fell" for goal, rate in best.asr)
    within = f"within an RMS of {limits.budget:g}/255"
    if best.profile == BARE:
        return f"no profile that meets the limits is better than the bare verifier {within} ({fell})"
    shown = any(claim.other == BARE and claim.verdict == "better" for claim in claims)
    if compared and not shown:
        return f"{best.profile} comes first, but is not shown to be better than the bare verifier {within} ({fell})"
    return ""


def _goals(goal: GoalOrAny) -> tuple[Goal, ...]:
    return GOALS if goal == "any" else (goal,)


def _matters(genuine: Bools, goals: Sequence[Goal]) -> Bools:
    """Whether each pair (n,) belongs to one of `goals`."""
    return np.any([genuine if g == "dodging" else ~genuine for g in goals], axis=0)


def _standing(c: Candidate, attacks: tuple[str, ...], genuine: Bools, limits: Limits) -> Standing:
    fallen, unfit = c.fallen, _beyond_the_pairs(c, limits)
    if not c.successes:
        unfit += [] if c.covered is not None else ["the run has no attack that knows it"]
    elif missing := [name for name in attacks if name not in c.successes]:
        unfit.append(f"{', '.join(missing)} with perfect knowledge attacked other profiles, but not this one")
    if c.failed_checks:
        unfit.append(f"sanity check failed: {', '.join(c.failed_checks)}")
    asr = []
    for goal in _goals(limits.goal):
        of_goal = c.eligible & _matters(genuine, (goal,))
        asr.append((goal, Rate(int((fallen & of_goal).sum()), int(of_goal.sum()))))
        if of_goal.sum() < FEWEST_PAIRS:
            unfit.append(
                f"{of_goal.sum()} eligible pairs for {goal} are too few to compare profiles (at least {FEWEST_PAIRS})"
            )
    matters = _matters(genuine, _goals(limits.goal))
    counts = {name: int((success & matters).sum()) for name, success in c.successes.items()}
    strongest = max(counts, key=lambda name: counts[name], default=None)
    exceeded = []
    for what, limit, value in _limited(limits, c.fnmr.value, c.fmr.value, c.latency_ratio):
        if value is None:
            unfit.append(f"its {what} is unknown")
        elif value > limit:
            exceeded.append(f"{what} {value:.3g} is above {limit:g}")
    return Standing(
        profile=c.profile,
        asr=tuple(asr),
        upper=max(rate.upper_bound() for _, rate in asr) if c.successes or c.covered is not None else None,
        strongest=strongest if strongest is not None and counts[strongest] else None,
        fnmr=c.fnmr,
        fmr=c.fmr,
        latency_ratio=c.latency_ratio,
        radius=None if c.radii is None else float(c.radii[matters].mean()),
        unfit=tuple(unfit),
        exceeded=tuple(exceeded),
    )


def _beyond_the_pairs(c: Candidate, limits: Limits) -> list[str]:
    """The limits that cannot be shown, because there are too few clean pairs even for a rate of zero."""
    return [
        f"{rate.trials} pairs are too few to show a clean {what} of {limit:g}"
        for what, limit, rate in (("FNMR", limits.max_fnmr, c.fnmr), ("FMR", limits.max_fmr, c.fmr))
        if limit is not None and Rate(0, rate.trials).upper_bound() > limit
    ]


def _limited(
    limits: Limits, fnmr: float | None, fmr: float | None, latency: float | None
) -> list[tuple[str, float, float | None]]:
    """List (name, limit, value) of each limit that is set."""
    rows = [
        ("clean FNMR", limits.max_fnmr, fnmr),
        ("clean FMR", limits.max_fmr, fmr),
        ("latency ratio", limits.max_latency_ratio, latency),
    ]
    return [(what, limit, value) for what, limit, value in rows if limit is not None]


def _excess(s: Standing, limits: Limits) -> float:
    """The sum of the excesses over all limits, each relative to its limit."""
    rows = _limited(limits, s.fnmr.value, s.fmr.value, s.latency_ratio)
    return sum(max(0.0, (value or 0.0) - limit) / max(limit, 1e-9) for _, limit, value in rows)


def _rank(s: Standing) -> tuple[float, ...]:
    """Sort key: smaller is better, the most important value comes first, and unknown values are the worst."""
    values = (s.upper, -(s.radius or 0.0), s.fnmr.value, s.fmr.value, s.latency_ratio)
    return tuple(float("inf") if value is None else value for value in values)


def _dominates(first: Standing, second: Standing) -> bool:
    a, b = _rank(first), _rank(second)
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _claims(profile: str, candidates: Sequence[Candidate], matters: Bools) -> tuple[Claim, ...]:
    mine = next(c for c in candidates if c.profile == profile)
    others = [other for other in candidates if other is not mine]
    rows, signs = [], [norm_signs(mine, other, matters) for other in others]
    for other in others:
        both = mine.eligible & other.eligible & matters
        a, b = mine.fallen & both, other.fallen & both
        rows.append((int(both.sum()), int((a & ~b).sum()), int((b & ~a).sum())))
    p_values = [mcnemar(fell, other_fell) for _, fell, other_fell in rows]
    adjusted, of_norms = holm(p_values), holm([sign.p_value for sign in signs])
    return tuple(
        Claim(
            profile,
            other.profile,
            *row,
            p_value=p_values[i],
            p_adjusted=float(adjusted[i]),
            verdict=_verdict(row[1], row[2], float(adjusted[i])),
            larger=signs[i].larger,
            smaller=signs[i].smaller,
            norms_p_value=signs[i].p_value,
            norms_p_adjusted=float(of_norms[i]),
            norms=norm_verdict(signs[i], float(of_norms[i])),
        )
        for i, (other, row) in enumerate(zip(others, rows, strict=True))
    )


def _verdict(fell: int, other_fell: int, p_adjusted: float) -> Verdict:
    if p_adjusted >= LEVEL:
        return "not shown"
    return "better" if fell < other_fell else "worse"


def _reasons(best: Standing, claims: Sequence[Claim], limits: Limits, *, attacked: bool) -> tuple[str, ...]:
    reasons = []
    what = "attacks that know the profile succeed on" if attacked else "no certificate covers the budget of"
    for goal, rate in best.asr:
        reasons.append(
            f"{goal}: {what} {rate.successes} of {rate.trials} eligible pairs, "
            f"so the ASR is at most {100 * rate.upper_bound():.1f} % (one-sided 95 % bound)"
        )
    for what, limit, rate in (("FNMR", limits.max_fnmr, best.fnmr), ("FMR", limits.max_fmr, best.fmr)):
        if limit is not None and rate.value is not None and rate.value <= limit < rate.upper_bound():
            reasons.append(
                f"its measured clean {what} is within the limit, but with {rate.trials} pairs the true rate may be up "
                f"to {100 * rate.upper_bound():.1f} % (one-sided 95 % bound)"
            )
    if best.radius is not None:
        reasons.append(
            f"certified: no attack at all changes the decision of a pair within an L2 distance of {best.radius:.2f} on "
            "average (0 where the decision is wrong)"
        )
    for verdict, words in (
        ("better", "attacks succeed less often than with {}"),
        ("worse", "attacks succeed more often than with {}"),
        ("not shown", "the data do not show that it is better than {}"),
    ):
        others = [claim.other for claim in claims if claim.verdict == verdict]
        if others:
            reasons.append(words.format(", ".join(others)) + f" (McNemar with Holm, level {LEVEL:g})")
    for verdict, words in (
        ("better", "attackers need larger perturbations than with {}"),
        ("worse", "attackers need smaller perturbations than with {}"),
    ):
        others = [claim.other for claim in claims if claim.norms == verdict]
        if others:
            reasons.append(words.format(", ".join(others)) + f" (sign test with Holm, level {LEVEL:g})")
    return tuple(reasons)
