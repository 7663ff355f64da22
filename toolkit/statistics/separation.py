"""How far apart the distances of genuine and impostor pairs lie, and whether one verifier separates them better."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.statistics.verification import Bools, Floats, check_pairs

# Below this d' about a third of all pairs are decided wrongly at any threshold: nobody is recognized.
LEAST_SEPARATION = 1.0
# Fewer pairs of a kind show nothing about separation.
FEWEST_TO_SEPARATE = 10
# Resamples of the bootstrap.
_DRAWS = 1000
# A measure of genuine distances (..., g) and impostor distances (..., i): one number for each leading index.
Measure = Callable[[Floats, Floats], Any]


def d_primes(genuine: Floats, impostor: Floats) -> Any:
    """Return d' with its sign, (mu_i - mu_g) / sqrt((var_g + var_i) / 2), along the last axis.

    It is negative if impostor pairs are nearer than genuine ones, and zero if no distance differs from another one of
    its kind.
    """
    spread = np.sqrt((genuine.var(axis=-1, ddof=1) + impostor.var(axis=-1, ddof=1)) / 2)
    gap = impostor.mean(axis=-1) - genuine.mean(axis=-1)
    return np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0) if np.ndim(gap) else _over(gap, spread)


def _over(gap: float, spread: float) -> float:
    return float(gap / spread) if spread > 0 else (math.copysign(math.inf, gap) if gap else 0.0)


def closeness(genuine: Floats, impostor: Floats) -> Any:
    """Return how many times farther impostor pairs are than genuine ones, log(mu_i / mu_g), along the last axis.

    On the same pairs it tells two ways to prepare images apart with far fewer pairs than d' does, because their
    distances rise and fall together. It does not compare two metrics: a square root changes it.
    """
    tiny = np.finfo(np.float64).tiny
    return np.log(np.maximum(impostor.mean(axis=-1), tiny) / np.maximum(genuine.mean(axis=-1), tiny))


def paired_difference(
    measure: Measure, one: Floats, other: Floats, genuine: Bools, rng: np.random.Generator, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the difference of a measure between two verifiers on the same pairs.

    The pairs are drawn with replacement, genuine and impostor ones apart (percentile bootstrap, Efron 1979).

    Args:
        measure: `d_primes` or `closeness`.
        one: (n,) distances by one verifier.
        other: (n,) distances by the other one.
        genuine: (n,), True for pairs of one person.
        rng: draws the pairs.
        confidence: of the interval.

    Raises:
        InputError: the arrays do not fit together, or a distance is not finite.
        InsufficientError: one kind of pair is missing.
    """
    first, labels = check_pairs(one, genuine)
    second, _ = check_pairs(other, genuine)
    same, different = (
        rng.choice(np.flatnonzero(labels == kind), (_DRAWS, np.count_nonzero(labels == kind))) for kind in (True, False)
    )
    difference = measure(first[same], first[different]) - measure(second[same], second[different])
    tail = (1 - confidence) / 2
    low, high = np.quantile(difference, (tail, 1 - tail))
    return float(low), float(high)
