"""Paired comparison of values that are known only up to a limit: the exact sign test, and the median difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from toolkit.errors import InputError
from toolkit.pixels import Float
from toolkit.statistics.tests import mcnemar


@dataclass(frozen=True)
class Signs:
    """The exact two-sided sign test of two values of each pair.

    Attributes:
        larger, smaller: pairs whose first value is the larger one, and the smaller one. Ties carry no information.
        p_value: in (0, 1].
    """

    larger: int
    smaller: int
    p_value: float


@dataclass(frozen=True)
class Shift:
    """The median of the differences of n pairs, with a 95 % interval that needs no assumption on their distribution.

    Attributes:
        pairs: pairs of which at least one value is known; the others say nothing of a difference.
        median: a lower bound of the median, exact if no value is censored; None without such pairs.
        low, high: the interval; infinite where the pairs bound nothing.
    """

    pairs: int
    median: float | None
    low: float
    high: float


def sign_test(first: Float, second: Float) -> Signs:
    """Test whether the first value of a pair is larger as often as the second one.

    Censored values are infinite. The test needs only the order of two values. A limit that both values share keeps the
    order, unless both are censored, which is a tie. Wilcoxon's signed-rank test also needs the size of each
    difference, which no censored pair has.

    Args:
        first: (n,), the first values.
        second: (n,), the second values of the same pairs.

    Raises:
        InputError: a value is not a number, or the lengths differ.
    """
    _check(first, second)
    larger, smaller = int((first > second).sum()), int((first < second).sum())
    return Signs(larger, smaller, mcnemar(larger, smaller))


def median_difference(first: Float, second: Float, limit: float) -> Shift:
    """Bound the median of `first - second`, where infinite values are known only to be above a limit.

    The lower end takes each censored pair at the smallest difference that it may have, the upper end at the largest.
    The interval is that of order statistics (the inverse of the sign test), and needs 6 pairs.

    Args:
        first: (n,), the first values. Infinite means above `limit`.
        second: (n,), the second values of the same pairs.
        limit: what a censored value is above.

    Raises:
        InputError: a value is not a number, or the lengths differ.
    """
    _check(first, second)
    known = np.isfinite(first) | np.isfinite(second)
    a, b = first[known], second[known]
    n = len(a)
    if not n:
        return Shift(0, None, -np.inf, np.inf)
    least = np.sort(np.where(np.isinf(b), -np.inf, np.where(np.isinf(a), limit, a) - np.where(np.isinf(b), 0, b)))
    most = np.sort(np.where(np.isinf(a), np.inf, np.where(np.isinf(a), 0, a) - np.where(np.isinf(b), limit, b)))
    # The number of order statistics that each end of the interval leaves out.
    rank = int(stats.binom.ppf(0.025, n, 0.5))
    low, high = (float(least[rank - 1]), float(most[n - rank])) if rank else (-np.inf, np.inf)
    middle = (float(least[(n - 1) // 2]), float(least[n // 2]))
    return Shift(n, -np.inf if np.isinf(middle[0]) else sum(middle) / 2, low, high)


def _check(first: Float, second: Float) -> None:
    if first.shape != second.shape or first.ndim != 1 or np.isnan(first).any() or np.isnan(second).any():
        raise InputError("paired values must be two lists of the same length, without values that are not numbers")
