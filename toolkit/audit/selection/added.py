"""What each profile adds to the attacker's cost: the worst case of each pair, compared with the bare verifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from toolkit.audit.selection.candidates import BARE, Candidate
from toolkit.pixels import Bools
from toolkit.statistics.censored import Shift, Signs, median_difference, sign_test
from toolkit.statistics.tests import LEVEL, holm

Verdict = Literal["better", "worse", "not shown"]


@dataclass(frozen=True)
class Median:
    """The median over pairs of a paired ratio or difference, with its 95 % interval of order statistics.

    Attributes:
        pairs: pairs that fell to an attack on at least one of the two sides; the others are beyond reach on both.
        at_least: the median, with each pair that did not fall taken at the smallest value that it may have.
        low, high: the interval. None where the pairs bound nothing.
    """

    pairs: int
    at_least: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Added:
    """What a profile adds to the attacker's cost. The value of a pair is its smallest perturbation of any attack.

    A pair that no attack got within the budget has a value above it, which is not known. The exact sign test needs only
    the order of two values, and such a pair keeps it; Wilcoxon's signed-rank test would need the size of the
    difference.

    Attributes:
        profile: name of the profile.
        pairs: pairs that are eligible behind the profile and bare.
        larger, smaller: pairs that need a larger perturbation behind the profile, and a smaller one.
        p_value, p_adjusted: of the two-sided sign test, before and after Holm's correction over the profiles.
        verdict: "better" if significantly more pairs need a larger perturbation behind the profile.
        ratio: of the perturbations' RMS, behind the profile over bare.
        queries: extra queries behind the profile; None without attacks that only query.
    """

    profile: str
    pairs: int
    larger: int
    smaller: int
    p_value: float
    p_adjusted: float
    verdict: Verdict
    ratio: Median
    queries: Median | None


def added_costs(candidates: Sequence[Candidate], matters: Bools, budget: float) -> tuple[Added, ...]:
    """Compare each profile with the bare verifier; nothing without it.

    Args:
        candidates: profiles of one run with n pairs.
        matters: (n,), whether the pair belongs to a goal that counts.
        budget: the RMS, in 1/255, of what counts.
    """
    bare = next((c for c in candidates if c.profile == BARE), None)
    if bare is None:
        return ()
    others = [c for c in candidates if c is not bare]
    signs = [norm_signs(c, bare, matters) for c in others]
    adjusted = holm([s.p_value for s in signs])
    return tuple(
        Added(
            profile=c.profile,
            pairs=int((c.eligible & bare.eligible & matters).sum()),
            larger=s.larger,
            smaller=s.smaller,
            p_value=s.p_value,
            p_adjusted=float(p),
            verdict=norm_verdict(s, float(p)),
            ratio=_ratio(c, bare, matters, budget),
            queries=_extra_queries(c, bare, matters),
        )
        for c, s, p in zip(others, signs, adjusted, strict=True)
    )


def norm_signs(first: Candidate, second: Candidate, matters: Bools) -> Signs:
    """Test whether attackers need larger perturbations behind the first profile; see `Added`."""
    both = first.eligible & second.eligible & matters
    return sign_test(first.norms[both], second.norms[both])


def norm_verdict(signs: Signs, p_adjusted: float) -> Verdict:
    """Whether the first profile is shown to cost attackers more, or less."""
    if p_adjusted >= LEVEL:
        return "not shown"
    return "better" if signs.larger > signs.smaller else "worse"


def _ratio(c: Candidate, bare: Candidate, matters: Bools, budget: float) -> Median:
    both = c.eligible & bare.eligible & matters
    # A ratio is a difference of logarithms. A draw of a random profile may flip without any perturbation.
    least = 1e-6
    first, second = (np.log(np.maximum(norms[both], least)) for norms in (c.norms, bare.norms))
    return _median(median_difference(first, second, float(np.log(budget))), np.exp)


def _extra_queries(c: Candidate, bare: Candidate, matters: Bools) -> Median | None:
    if c.most_queries is None or bare.most_queries is None:
        return None
    both = c.eligible & bare.eligible & matters
    limit = float(max(c.most_queries, bare.most_queries))
    return _median(median_difference(c.queries[both], bare.queries[both], limit), np.float64)


def _median(shift: Shift, scale: type[np.float64] | np.ufunc) -> Median:
    """Scale a shift. Minus infinity bounds nothing."""

    def scaled(value: float | None) -> float | None:
        return None if value is None or not np.isfinite(value) else float(scale(value))

    return Median(shift.pairs, scaled(shift.median), scaled(shift.low), scaled(shift.high))
