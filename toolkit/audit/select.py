"""Selection: one profile out of a finished audit, within an operator's limits, with the evidence for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from toolkit.attacks.base import Bools
from toolkit.audit.outcomes import Run
from toolkit.audit.plan import ADAPTIVE, GOALS, Goal
from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import holm, mcnemar

GoalOrAny = Literal["dodging", "impersonation", "any"]
WANTED: tuple[GoalOrAny, ...] = get_args(GoalOrAny)
Verdict = Literal["better", "worse", "not shown"]

LEVEL = 0.05
# With fewer pairs the exact McNemar test cannot reach the level, whatever the attacks do.
FEWEST_PAIRS = next(n for n in range(1, 100) if mcnemar(0, n) < LEVEL)


@dataclass(frozen=True)
class Limits:
    """What an operator accepts; None is no limit. They are compared with what was measured, not with its bounds.

    Attributes:
        goal: the attacker's goal that matters; with `any` the worse of the two counts.
        max_fnmr: the largest clean FNMR, a share.
        max_fmr: the largest clean FMR, a share.
        max_latency_ratio: the largest median latency of a call with one crop, over that of the bare verifier.
    """

    goal: GoalOrAny = "any"
    max_fnmr: float | None = None
    max_fmr: float | None = None
    max_latency_ratio: float | None = None


@dataclass(frozen=True)
class Candidate:
    """What a run knows of one profile.

    Attributes:
        profile: its name.
        fnmr: clean, at the manifest's threshold.
        fmr: clean, at the manifest's threshold.
        eligible: (n,), pairs that the deployed verifier decided correctly before the attack.
        successes: of each attack that knows the profile, by name: (n,), False where not eligible.
        failed_checks: names of the run's sanity checks that failed on the profile.
        latency_ratio: see `Limits`; None where it was not measured.
    """

    profile: str
    fnmr: Rate
    fmr: Rate
    eligible: Bools
    successes: dict[str, Bools]
    failed_checks: tuple[str, ...] = ()
    latency_ratio: float | None = None


@dataclass(frozen=True)
class Standing:
    """One profile beside the others.

    Attributes:
        asr: for each goal that matters, the pairs that fell to at least one of the attacks that know the profile,
            over eligible pairs: an attacker tries them all and takes what succeeds.
        upper: the largest of their one-sided exact 95 % upper bounds; None where nothing is known.
        strongest: the single attack with the most successes; None where none succeeded.
        unfit: why it is never recommended on this evidence.
        exceeded: the limits that it does not meet.
        front: whether no other fit profile is at least as good in the ASR's bound, FNMR, FMR and latency, and better
            in one of them.
    """

    profile: str
    asr: tuple[tuple[Goal, Rate], ...]
    upper: float | None
    strongest: str | None
    fnmr: Rate
    fmr: Rate
    latency_ratio: float | None
    unfit: tuple[str, ...]
    exceeded: tuple[str, ...]
    front: bool = False


@dataclass(frozen=True)
class Claim:
    """Whether attacks succeed less behind `profile` than behind `other`: exact McNemar, Holm over all claims.

    `pairs` are eligible behind both; `fell` of them fell behind `profile` alone, `other_fell` behind `other` alone.
    """

    profile: str
    other: str
    pairs: int
    fell: int
    other_fell: int
    p_value: float
    p_adjusted: float
    verdict: Verdict


@dataclass(frozen=True)
class Selection:
    """The recommendation: `chosen` is None where no profile meets the limits; then `nearest` misses them least."""

    limits: Limits
    attacks: tuple[str, ...]
    standings: tuple[Standing, ...]
    chosen: str | None
    nearest: str
    claims: tuple[Claim, ...]
    reasons: tuple[str, ...]


def select(candidates: Sequence[Candidate], genuine: Bools, limits: Limits) -> Selection:
    """Recommend, of the profiles that meet the limits, the one whose worst-case ASR has the smallest upper bound.

    Equal bounds are decided by the smaller FNMR, then FMR, then latency. A profile is unfit where the run has no attack
    that knows it, or fewer of them than another profile faced, or a failed sanity check of it, or fewer than
    `FEWEST_PAIRS` eligible pairs, or so few clean pairs that they could not show a limit even without an error.

    Args:
        candidates: the profiles of one run, over the same n pairs.
        genuine: (n,), which pairs are of one person.
        limits: the operator's.

    Raises:
        InsufficientError: no profile is fit to be recommended.
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
    claims = _claims(best.profile, compared, _matters(genuine, _goals(limits.goal)))
    return Selection(
        limits,
        attacks,
        tuple(standings),
        best.profile if within else None,
        best.profile,
        claims,
        _reasons(best, claims, limits),
    )


def check_chosen(selection: Selection) -> None:
    """Refuse a selection without a profile.

    Raises:
        InsufficientError: no profile meets the limits; the message names the nearest and what it misses.
    """
    if selection.chosen is None:
        missed = next(s.exceeded for s in selection.standings if s.profile == selection.nearest)
        raise InsufficientError(f"no profile meets the limits; the nearest is {selection.nearest}: {', '.join(missed)}")


def candidates_of(run: Run, latency_ratios: dict[str, float]) -> list[Candidate]:
    """The profiles of a run, with latencies by name.

    Raises:
        InputError: two of them have the same name.
    """
    found: list[Candidate] = []
    for clean in run.assessment.clean:
        name = clean.profile
        if any(c.profile == name for c in found):
            raise InputError(f"two profiles of the run are called {name!r}; give each its own name and audit again")
        mine = [o for o in run.outcomes if o.profile == name]
        failed = [c.name for c in run.assessment.checks if not c.passed and f" on {c.about}".endswith(f" on {name}")]
        found.append(
            Candidate(
                profile=name,
                fnmr=clean.fnmr,
                fmr=clean.fmr,
                eligible=mine[0].eligible if mine else np.zeros(len(run.genuine), np.bool_),
                successes={o.attack: o.success for o in mine if o.knowledge in ADAPTIVE},
                failed_checks=tuple(dict.fromkeys(failed)),
                latency_ratio=latency_ratios.get(name),
            )
        )
    return found


def _goals(goal: GoalOrAny) -> tuple[Goal, ...]:
    return GOALS if goal == "any" else (goal,)


def _matters(genuine: Bools, goals: Sequence[Goal]) -> Bools:
    """The pairs of the goals that matter."""
    return np.any([genuine if g == "dodging" else ~genuine for g in goals], axis=0)


def _fallen(candidate: Candidate) -> Bools:
    return np.any([np.zeros_like(candidate.eligible), *candidate.successes.values()], axis=0)


def _standing(c: Candidate, attacks: tuple[str, ...], genuine: Bools, limits: Limits) -> Standing:
    fallen, unfit = _fallen(c), _beyond_the_pairs(c, limits)
    if not c.successes:
        unfit.append("no attack that knows it was run")
    elif missing := [name for name in attacks if name not in c.successes]:
        unfit.append(f"{', '.join(missing)} with perfect knowledge was run on other profiles, but not on it")
    if c.failed_checks:
        unfit.append(f"sanity check failed: {', '.join(c.failed_checks)}")
    asr = []
    for goal in _goals(limits.goal):
        of_goal = c.eligible & _matters(genuine, (goal,))
        asr.append((goal, Rate(int((fallen & of_goal).sum()), int(of_goal.sum()))))
        if of_goal.sum() < FEWEST_PAIRS:
            unfit.append(
                f"{of_goal.sum()} eligible pairs for {goal}; fewer than {FEWEST_PAIRS} cannot tell profiles apart"
            )
    matters = _matters(genuine, _goals(limits.goal))
    counts = {name: int((success & matters).sum()) for name, success in c.successes.items()}
    strongest = max(counts, key=lambda name: counts[name], default=None)
    exceeded = []
    for what, limit, value in _limited(limits, c.fnmr.value, c.fmr.value, c.latency_ratio):
        if value is None:
            unfit.append(f"its {what} is not known")
        elif value > limit:
            exceeded.append(f"{what} {value:.3g} is above {limit:g}")
    return Standing(
        profile=c.profile,
        asr=tuple(asr),
        upper=max(rate.upper_bound() for _, rate in asr) if c.successes else None,
        strongest=strongest if strongest is not None and counts[strongest] else None,
        fnmr=c.fnmr,
        fmr=c.fmr,
        latency_ratio=c.latency_ratio,
        unfit=tuple(unfit),
        exceeded=tuple(exceeded),
    )


def _beyond_the_pairs(c: Candidate, limits: Limits) -> list[str]:
    """The limits that so few clean pairs could not show even without an error."""
    return [
        f"{rate.trials} pairs cannot show a clean {what} of {limit:g}, even without an error"
        for what, limit, rate in (("FNMR", limits.max_fnmr, c.fnmr), ("FMR", limits.max_fmr, c.fmr))
        if limit is not None and Rate(0, rate.trials).upper_bound() > limit
    ]


def _limited(
    limits: Limits, fnmr: float | None, fmr: float | None, latency: float | None
) -> list[tuple[str, float, float | None]]:
    """(what, limit, value) of each limit that is set."""
    rows = [
        ("clean FNMR", limits.max_fnmr, fnmr),
        ("clean FMR", limits.max_fmr, fmr),
        ("latency ratio", limits.max_latency_ratio, latency),
    ]
    return [(what, limit, value) for what, limit, value in rows if limit is not None]


def _excess(s: Standing, limits: Limits) -> float:
    """By how much limits are missed, as shares of them, summed."""
    rows = _limited(limits, s.fnmr.value, s.fmr.value, s.latency_ratio)
    return sum(max(0.0, (value or 0.0) - limit) / max(limit, 1e-9) for _, limit, value in rows)


def _rank(s: Standing) -> tuple[float, ...]:
    """Smaller is better, most important first; what is not known counts as the worst."""
    values = (s.upper, s.fnmr.value, s.fmr.value, s.latency_ratio)
    return tuple(float("inf") if value is None else value for value in values)


def _dominates(first: Standing, second: Standing) -> bool:
    a, b = _rank(first), _rank(second)
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _claims(profile: str, candidates: Sequence[Candidate], matters: Bools) -> tuple[Claim, ...]:
    mine = next(c for c in candidates if c.profile == profile)
    rows = []
    for other in candidates:
        if other.profile != profile:
            both = mine.eligible & other.eligible & matters
            a, b = _fallen(mine) & both, _fallen(other) & both
            rows.append((other.profile, int(both.sum()), int((a & ~b).sum()), int((b & ~a).sum())))
    p_values = [mcnemar(fell, other_fell) for _, _, fell, other_fell in rows]
    return tuple(
        Claim(profile, *row, p_value, float(adjusted), _verdict(row[2], row[3], float(adjusted)))
        for row, p_value, adjusted in zip(rows, p_values, holm(p_values), strict=True)
    )


def _verdict(fell: int, other_fell: int, p_adjusted: float) -> Verdict:
    if p_adjusted >= LEVEL:
        return "not shown"
    return "better" if fell < other_fell else "worse"


def _reasons(best: Standing, claims: Sequence[Claim], limits: Limits) -> tuple[str, ...]:
    reasons = []
    for goal, rate in best.asr:
        reasons.append(
            f"{goal}: {rate.successes} of {rate.trials} eligible pairs fell to an attack that knows the "
            f"profile, so the ASR is at most {100 * rate.upper_bound():.1f} % (one-sided, 95 %)"
        )
    for what, limit, rate in (("FNMR", limits.max_fnmr, best.fnmr), ("FMR", limits.max_fmr, best.fmr)):
        if limit is not None and rate.value is not None and rate.value <= limit < rate.upper_bound():
            reasons.append(
                f"its clean {what} was measured within the limit, but {rate.trials} pairs do not show it: up to "
                f"{100 * rate.upper_bound():.1f} % (one-sided, 95 %)"
            )
    for verdict, words in (
        ("better", "attacks succeed less than behind {}"),
        ("worse", "attacks succeed more than behind {}"),
        ("not shown", "not shown to be better than {}"),
    ):
        others = [claim.other for claim in claims if claim.verdict == verdict]
        if others:
            reasons.append(words.format(", ".join(others)) + f" (McNemar with Holm, level {LEVEL:g})")
    return tuple(reasons)
