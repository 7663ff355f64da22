"""Rates of successes over trials: confidence intervals, one-sided bounds, and the number of trials a claim needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from toolkit.errors import InputError


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; it must be between 0 and 1, for example 0.95")


def wilson(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Wilson score interval (lower, upper) of a rate, both from 0 to 1.

    Args:
        successes: the sum of the trials' values. If these are shares from 0 to 1, the interval is too wide, because
            no values from 0 to 1 vary more than 0 and 1 do at the same mean.
        trials: the number of trials. Nothing is known of none, and their interval is (0, 1).
        confidence: the confidence of the interval.
    """
    _check_confidence(confidence)
    if not trials:
        return 0.0, 1.0
    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    n, k = trials, successes
    center = (k + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (k * (n - k) / n + z2 / 4)) / (n + z2)
    # For k = 0 and k = n the bound is exactly 0 or 1, but rounding errors would miss it.
    return (0.0 if k == 0 else center - half), (1.0 if k == n else center + half)


@dataclass(frozen=True)
class Rate:
    """A rate: successes over trials of independent pairs.

    Bounds are shares in [0, 1]. With 0 trials nothing is known, and every interval is (0, 1). Gates use the exact
    bounds (Clopper and Pearson 1934). Displays use the Wilson interval (Wilson 1927). Its coverage is close to nominal
    on average, but not guaranteed.

    Raises:
        InputError: the counts are negative, or there are more successes than trials.
    """

    successes: int
    trials: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials:
            raise InputError(f"a rate of {self.successes} successes in {self.trials} trials is impossible")

    @property
    def value(self) -> float | None:
        """The share of successes in [0, 1]; None with 0 trials."""
        return self.successes / self.trials if self.trials else None

    @property
    def rule_of_three(self) -> float | None:
        """The approximate 95 % upper bound for 0 successes, min(1, 3 / trials) (Hanley 1983); otherwise None."""
        if self.successes or not self.trials:
            return None
        return min(1.0, 3 / self.trials)

    def wilson(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the two-sided Wilson score interval (lower, upper)."""
        return wilson(self.successes, self.trials, confidence)

    def clopper_pearson(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the two-sided exact interval. Each side is wrong with probability at most (1 - confidence) / 2."""
        _check_confidence(confidence)
        one_sided = (1 + confidence) / 2
        return self.lower_bound(one_sided), self.upper_bound(one_sided)

    def upper_bound(self, confidence: float = 0.95) -> float:
        """Return the one-sided exact upper bound. The true rate exceeds it with probability at most 1 - confidence."""
        _check_confidence(confidence)
        if self.successes == self.trials:
            return 1.0
        return float(stats.beta.ppf(confidence, self.successes + 1, self.trials - self.successes))

    def lower_bound(self, confidence: float = 0.95) -> float:
        """Return the one-sided exact lower bound. The true rate is below it with probability at most 1 - confidence."""
        _check_confidence(confidence)
        if not self.successes:
            return 0.0
        return float(stats.beta.ppf(1 - confidence, self.successes, self.trials - self.successes + 1))


def trials_to_claim(rate: float, confidence: float = 0.95) -> int:
    """Return how many trials without any success are needed to claim "the true rate is at most `rate`".

    This is the smallest n with (1 - rate)^n <= 1 - confidence: 59 for 5 %, 299 for 1 %.

    Raises:
        InputError: `rate` or `confidence` is not between 0 and 1.
    """
    _check_confidence(confidence)
    if not 0 < rate < 1:
        raise InputError(f"trials cannot show a rate of {rate}; the claimed rate must be between 0 and 1")
    return max(1, math.ceil(math.log1p(-confidence) / math.log1p(-rate) - 1e-9))
