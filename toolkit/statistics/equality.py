"""An exact test of whether groups have the same rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from toolkit.errors import InputError
from toolkit.statistics.intervals import Rate

# Beyond this number of tables they are drawn, not listed.
_MOST_TABLES = 200_000
_DRAWS = 50_000
# Probabilities that differ by less than this, relatively, are rounding errors apart.
_SLACK = 1e-7


def equal_rates(rates: Sequence[Rate]) -> float:
    """Test whether independent groups have one true rate (Fisher 1922; Freeman and Halton 1951).

    Given the successes of all groups together, every way to spread them over the groups has a known probability. The p
    value is that of the ways that are at most as probable as the one observed. With two groups this is Fisher's exact
    test. If there are more than 200,000 ways, the p value is that of 50,000 random ones and the observed one, which
    keeps the level too.

    Args:
        rates: the rates of two or more groups.

    Returns:
        The p value in (0, 1].

    Raises:
        InputError: there are fewer than two groups, or a group has no trials.
    """
    if len(rates) < 2 or not all(rate.trials for rate in rates):
        raise InputError("rates can be compared between two or more groups, each with at least one pair")
    # The largest group comes last: its successes follow from those of the others.
    ordered = sorted(rates, key=lambda rate: rate.trials)
    trials = np.array([rate.trials for rate in ordered])
    total = sum(rate.successes for rate in ordered)
    observed = _log_ways(np.array([[rate.successes for rate in ordered]]), trials)[0] + _SLACK
    if np.prod(np.minimum(trials[:-1], total) + 1.0) > _MOST_TABLES:
        drawn = np.random.default_rng(0).multivariate_hypergeometric(trials, total, _DRAWS)
        return float((1 + (_log_ways(drawn, trials) <= observed).sum()) / (1 + _DRAWS))
    ways = _log_ways(_spread(trials, total), trials)
    return min(1.0, float(np.exp(ways[ways <= observed] - special.logsumexp(ways)).sum()))


def _spread(trials: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Every way (m, k) to spread `total` successes over k groups."""
    ways = np.zeros((1, 0), np.int64)
    for n in trials[:-1]:
        of_group = np.arange(min(n, total) + 1)
        ways = np.column_stack([ways.repeat(len(of_group), 0), np.tile(of_group, len(ways))])
        ways = ways[ways.sum(1) <= total]
    last = total - ways.sum(1)
    return np.column_stack([ways, last])[last <= trials[-1]]


def _log_ways(successes: NDArray[np.int64], trials: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logarithm of the number of outcomes of the trials with these successes (m, k)."""
    parts = special.gammaln(trials + 1) - special.gammaln(successes + 1) - special.gammaln(trials - successes + 1)
    return np.asarray(parts.sum(1), np.float64)
