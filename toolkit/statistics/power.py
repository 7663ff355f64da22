"""Sample size planning: how many pairs a claim needs, computed exactly with the binomial distribution.

Exact power rises with the number of pairs, but with small dips, because counts are integers. A slightly smaller number
of pairs may therefore reach the same power.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InputError, InsufficientError

# A plan with more pairs than this is not realistic.
_MOST = 10_000_000


@dataclass(frozen=True)
class BoundPlan:
    """The number of pairs needed to show that a rate is at most `claim`.

    Attributes:
        claim: the upper limit of the rate that the pairs must show.
        expected: the assumed true rate.
        confidence: the confidence of the one-sided exact bound.
        power: the probability that this many pairs show the claim.
        pairs: the number of pairs needed.
        most_errors: the largest number of errors on these pairs that still shows the claim.
    """

    claim: float
    expected: float
    confidence: float
    power: float
    pairs: int
    most_errors: int


@dataclass(frozen=True)
class ComparisonPlan:
    """The number of pairs needed to show with the exact McNemar test that one profile is better than another.

    Both profiles are tested on the same pairs.

    Attributes:
        only_first, only_second: the shares of pairs that are broken only for the first or only for the second profile.
        level: the significance level of the two-sided test. It is divided by the number of comparisons, as in the
            first step of Holm's correction.
        comparisons: the number of tests on the same pairs.
        power: the probability that this many pairs give a significant difference.
        pairs: the number of pairs needed.
    """

    only_first: float
    only_second: float
    level: float
    comparisons: int
    power: float
    pairs: int


def pairs_to_bound(claim: float, expected: float = 0.0, confidence: float = 0.95, power: float = 0.8) -> BoundPlan:
    """Return the fewest pairs that show a rate of at most `claim` with probability `power`.

    For each number of errors c, the exact bound (Clopper and Pearson 1934) needs a number of pairs n. The result is
    the acceptance sampling plan (n, c) with the smallest n for which c or fewer errors are probable enough.

    Args:
        claim: the upper limit of the rate that the pairs must show, between 0 and 1.
        expected: the assumed true rate, at least 0 and below `claim`.
        confidence: the confidence of the one-sided exact bound.
        power: the wanted probability that the pairs show the claim.

    Raises:
        InputError: a rate or probability is not valid, or `expected` is not below `claim`.
        InsufficientError: the claim needs more than ten million pairs.
    """
    _check_shares(claim=claim, confidence=confidence, power=power)
    if not 0 <= expected < claim:
        raise InputError(
            f"an expected rate of {expected:g} cannot be shown to be at most {claim:g}; it must be below {claim:g}"
        )

    def shown(errors: int) -> float:
        pairs = _pairs_for_errors(errors, claim, confidence)
        if pairs > _MOST:
            raise InsufficientError(
                f"showing a rate of at most {claim:g} when {expected:g} is expected needs more than {_MOST} pairs; "
                "choose a larger difference"
            )
        return float(stats.binom.cdf(errors, pairs, expected))

    errors = _first(lambda count: shown(count) >= power)
    return BoundPlan(claim, expected, confidence, shown(errors), _pairs_for_errors(errors, claim, confidence), errors)


def _first(holds: Callable[[int], bool]) -> int:
    """Return the smallest number from 0 for which `holds` is true, found by doubling and bisection.

    `holds` must be true for all larger numbers as well.
    """
    if holds(0):
        return 0
    low, high = 0, 1
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _pairs_for_errors(errors: int, claim: float, confidence: float) -> int:
    """Return the fewest pairs for which `errors` errors still give an exact upper bound of at most `claim`."""
    more = _first(lambda n: float(stats.binom.cdf(errors, errors + 1 + n, claim)) <= 1 - confidence)
    return errors + 1 + more


def pairs_to_compare(
    only_first: float, only_second: float, level: float = 0.05, power: float = 0.8, comparisons: int = 1
) -> ComparisonPlan:
    """Return the fewest pairs on which the exact McNemar test separates two profiles with probability `power`.

    Args:
        only_first: the share of pairs that are broken only for the first profile, from 0 to 1.
        only_second: the share of pairs that are broken only for the second profile, from 0 to 1.
        level: the significance level of the two-sided test.
        power: the wanted probability of a significant difference.
        comparisons: the number of tests on the same pairs.

    Raises:
        InputError: a share or probability is not valid, or the two shares are equal.
        InsufficientError: the comparison needs more than ten million pairs.
    """
    _check_shares(level=level, power=power)
    if min(only_first, only_second) < 0 or only_first + only_second > 1 or only_first == only_second:
        raise InputError(
            f"shares {only_first:g} and {only_second:g} must differ, must not be negative, and must sum to at most 1"
        )
    if comparisons < 1:
        raise InputError(f"the number of comparisons is {comparisons}; it must be at least 1")

    def reached(pairs: int) -> float:
        if pairs > _MOST:
            raise InsufficientError(
                f"separating {only_first:g} from {only_second:g} needs more than {_MOST} pairs; "
                "choose a larger difference"
            )
        return mcnemar_power(pairs, only_first, only_second, level / comparisons)

    pairs = _first(lambda count: reached(count) >= power)
    return ComparisonPlan(only_first, only_second, level, comparisons, reached(pairs), pairs)


def mcnemar_power(pairs: int, only_first: float, only_second: float, level: float) -> float:
    """Return the probability that the exact two-sided McNemar test on `pairs` pairs has a p value of at most `level`.

    The number of discordant pairs is binomial(pairs, only_first + only_second). Among them, the number of pairs that
    are broken only for the first profile is binomial as well.
    """
    discordant = only_first + only_second
    # Counts outside this range have a total probability of about 2e-9.
    low, high = (int(stats.binom.ppf(tail, pairs, discordant)) for tail in (1e-9, 1 - 1e-9))
    counts = np.arange(low, high + 1)
    side = _largest_significant(counts, level)
    share = only_first / discordant
    significant = stats.binom.cdf(side, counts, share) + stats.binom.sf(counts - side - 1, counts, share)
    return float(np.sum(stats.binom.pmf(counts, pairs, discordant) * np.where(side < 0, 0.0, significant)))


def _largest_significant(discordant: NDArray[np.int64], level: float) -> NDArray[np.int64]:
    """Return the largest count on the smaller side with a p value of at most `level`; -1 if there is none.

    See `mcnemar` for the p value.

    Args:
        discordant: (n,) numbers of discordant pairs.
        level: the significance level.
    """
    # The quantile is the first count that reaches level / 2. The answer is this count or the count below it.
    side = stats.binom.ppf(level / 2, discordant, 0.5).astype(np.int64)
    return np.asarray(np.where(2 * stats.binom.cdf(side, discordant, 0.5) <= level, side, side - 1))


def _check_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 < value < 1:
            raise InputError(f"{name} is {value:g}; it must be between 0 and 1")
