"""Tests of profiles against each other on the same pairs: exact McNemar, and Holm's correction for many of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InputError


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test of two outcomes on the same pairs (McNemar 1947, in its binomial form).

    Args:
        only_first: pairs where only the first succeeded.
        only_second: pairs where only the second succeeded. Pairs on which both agree carry no information.

    Returns:
        The p value in (0, 1]: under the null each discordant pair falls to either side like a fair coin.
        It takes 6 to 0 to go below 5 %.

    Raises:
        InputError: a count is negative.
    """
    if min(only_first, only_second) < 0:
        raise InputError(f"McNemar counts are {only_first} and {only_second}; they must not be negative")
    discordant = only_first + only_second
    return min(1.0, 2 * float(stats.binom.cdf(min(only_first, only_second), discordant, 0.5)))


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down adjustment, which controls the family-wise error under any dependence (Holm 1979).

    Args:
        p_values: (n,) p values of one family, in [0, 1]; n may be 0.

    Returns:
        (n,) float64 adjusted p values in the order given; compare them with the level directly.

    Raises:
        InputError: a p value is not a number in [0, 1], or they are not a list.
    """
    values = np.asarray(p_values, np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise InputError("p values must be a list of numbers from 0 to 1")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
