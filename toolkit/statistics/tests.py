"""Paired tests that compare profiles on the same pairs: the exact McNemar test and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InputError

# The significance level of every comparison of profiles or runs.
LEVEL = 0.05


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test of two outcomes on the same pairs (McNemar 1947, in its binomial form).

    Pairs on which both outcomes agree carry no information.

    Args:
        only_first: the number of pairs where only the first succeeded.
        only_second: the number of pairs where only the second succeeded.

    Returns:
        The p value in (0, 1]. Under the null hypothesis each discordant pair falls to either side with probability
        1/2. A p value below 5 % needs at least 6 discordant pairs.

    Raises:
        InputError: a count is negative.
    """
    if min(only_first, only_second) < 0:
        raise InputError(f"McNemar counts are {only_first} and {only_second}; they must not be negative")
    discordant = only_first + only_second
    return min(1.0, 2 * float(stats.binom.cdf(min(only_first, only_second), discordant, 0.5)))


def mcnemar_worse(became_worse: int, became_better: int) -> float:
    """Exact one-sided McNemar test: whether more pairs became worse than became better.

    Args:
        became_worse: the number of pairs that only the second outcome fails.
        became_better: the number of pairs that only the first outcome fails.

    Returns:
        The p value in (0, 1].

    Raises:
        InputError: a count is negative.
    """
    if min(became_worse, became_better) < 0:
        raise InputError(f"McNemar counts are {became_worse} and {became_better}; they must not be negative")
    return float(stats.binom.sf(became_worse - 1, became_worse + became_better, 0.5))


def mcnemar_power(pairs: int, share: float, level: float) -> float:
    """The probability that `mcnemar_worse` finds a change for the worse, if no pair becomes better.

    Args:
        pairs: the number of pairs.
        share: the probability that a pair becomes worse.
        level: the significance level.
    """
    # The smallest number of pairs whose p value, 2 to the power of minus this number, is within the level.
    needed = int(np.ceil(np.log2(1 / level) - 1e-9))
    return float(stats.binom.sf(needed - 1, pairs, share))


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p values with Holm's step-down procedure (Holm 1979).

    It controls the family-wise error rate under any dependence.

    Args:
        p_values: (n,) p values of one family, in [0, 1]; n may be 0.

    Returns:
        (n,) float64 adjusted p values in the given order. Compare them with the significance level directly.

    Raises:
        InputError: a p value is not a number in [0, 1], or `p_values` is not one-dimensional.
    """
    values = np.asarray(p_values, np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise InputError("p values must be a list of numbers from 0 to 1")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


# With fewer pairs the exact McNemar test cannot reach the significance level, whatever the attacks achieve.
FEWEST_PAIRS = next(n for n in range(1, 100) if mcnemar(0, n) < LEVEL)


def holm_of_known(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct the p values that are known with `holm`; the others stay None and count as no test."""
    known = [p for p in p_values if p is not None]
    adjusted = iter(holm(known).tolist())
    return [None if p is None else next(adjusted) for p in p_values]
