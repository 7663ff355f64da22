"""How many pairs a claim needs, before they are collected: exact, by the binomial distribution.

Exact power rises with the number of pairs but for a ripple, because counts are whole numbers: a few pairs less may have
it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InputError, InsufficientError

# More pairs than this are no plan.
_MOST = 10_000_000


@dataclass(frozen=True)
class BoundPlan:
    """Pairs for the claim "the rate is at most `claim`".

    Attributes:
        claim: the largest rate that is to be shown.
        expected: the true rate that is assumed.
        confidence: of the one-sided exact bound.
        power: the probability that so many pairs show the claim.
        pairs: how many are needed.
        most_errors: the most of them that may be counted.
    """

    claim: float
    expected: float
    confidence: float
    power: float
    pairs: int
    most_errors: int


@dataclass(frozen=True)
class ComparisonPlan:
    """Pairs for "the one is better than the other", both on the same pairs, by the exact McNemar test.

    Attributes:
        only_first, only_second: shares of pairs where only one of the two is broken.
        level: of the two-sided test; divided by the number of comparisons, as Holm's first step does.
        comparisons: how many are made on these pairs.
        power: the probability that so many pairs tell the two apart.
        pairs: how many are needed.
    """

    only_first: float
    only_second: float
    level: float
    comparisons: int
    power: float
    pairs: int


def pairs_to_bound(claim: float, expected: float = 0.0, confidence: float = 0.95, power: float = 0.8) -> BoundPlan:
    """The fewest pairs whose exact upper bound is at most `claim`, with probability `power`, if the rate is `expected`.

    For each number of errors c the bound (Clopper and Pearson 1934) needs n pairs, and c errors or fewer among them
    must be probable enough: the acceptance sampling plan (n, c) of the smallest n.

    Raises:
        InputError: a rate or probability is not valid, or nothing can be shown because `expected` reaches `claim`.
        InsufficientError: it would take more than ten million pairs.
    """
    _check_shares(claim=claim, confidence=confidence, power=power)
    if not 0 <= expected < claim:
        raise InputError(f"a rate of {expected:g} cannot be shown to be at most {claim:g}; expect a smaller one")

    def shown(errors: int) -> float:
        pairs = _pairs_for_errors(errors, claim, confidence)
        if pairs > _MOST:
            raise InsufficientError(
                f"to show at most {claim:g} where {expected:g} is expected takes more than {_MOST} pairs"
            )
        return float(stats.binom.cdf(errors, pairs, expected))

    errors = _first(lambda count: shown(count) >= power)
    return BoundPlan(claim, expected, confidence, shown(errors), _pairs_for_errors(errors, claim, confidence), errors)


def _first(holds: Callable[[int], bool]) -> int:
    """The first number from 0 for which `holds`, which from there on does, by doubling and halving."""
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
    """The fewest pairs of which `errors` errors still give an exact upper bound of at most `claim`."""
    more = _first(lambda n: float(stats.binom.cdf(errors, errors + 1 + n, claim)) <= 1 - confidence)
    return errors + 1 + more


def pairs_to_compare(
    only_first: float, only_second: float, level: float = 0.05, power: float = 0.8, comparisons: int = 1
) -> ComparisonPlan:
    """The fewest pairs on which the exact McNemar test tells two profiles apart with probability `power`.

    Args:
        only_first: share of pairs that only the first profile lets through, from 0 to 1.
        only_second: the same of the second.
        level: of the test, two-sided.
        power: wanted.
        comparisons: number of tests on the same pairs.

    Raises:
        InputError: shares or probabilities are not valid, or the two shares are equal.
        InsufficientError: it would take more than ten million pairs.
    """
    _check_shares(level=level, power=power)
    if min(only_first, only_second) < 0 or only_first + only_second > 1 or only_first == only_second:
        raise InputError(f"shares of {only_first:g} and {only_second:g} leave nothing to tell apart, or are no shares")
    if comparisons < 1:
        raise InputError(f"the number of comparisons is {comparisons}; it must be at least 1")

    def reached(pairs: int) -> float:
        if pairs > _MOST:
            raise InsufficientError(f"to tell {only_first:g} from {only_second:g} takes more than {_MOST} pairs")
        return mcnemar_power(pairs, only_first, only_second, level / comparisons)

    pairs = _first(lambda count: reached(count) >= power)
    return ComparisonPlan(only_first, only_second, level, comparisons, reached(pairs), pairs)


def mcnemar_power(pairs: int, only_first: float, only_second: float, level: float) -> float:
    """The probability that the exact two-sided McNemar test of `pairs` pairs has a p value of at most `level`.

    Discordant pairs are binomial(pairs, only_first + only_second), and those of the first binomial among them.
    """
    discordant = only_first + only_second
    # All but 1e-9 of the probability.
    low, high = (int(stats.binom.ppf(tail, pairs, discordant)) for tail in (1e-9, 1 - 1e-9))
    counts = np.arange(low, high + 1)
    side = _largest_significant(counts, level)
    share = only_first / discordant
    significant = stats.binom.cdf(side, counts, share) + stats.binom.sf(counts - side - 1, counts, share)
    return float(np.sum(stats.binom.pmf(counts, pairs, discordant) * np.where(side < 0, 0.0, significant)))


def _largest_significant(discordant: NDArray[np.int64], level: float) -> NDArray[np.int64]:
    """The most pairs on the smaller side with a p value of at most `level`, see `mcnemar`; -1 where there is none."""
    # The quantile is where the probability is first reached, so it is this one or the one below.
    side = stats.binom.ppf(level / 2, discordant, 0.5).astype(np.int64)
    return np.asarray(np.where(2 * stats.binom.cdf(side, discordant, 0.5) <= level, side, side - 1))


def _check_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 < value < 1:
            raise InputError(f"{name} is {value:g}; it must lie between 0 and 1")
