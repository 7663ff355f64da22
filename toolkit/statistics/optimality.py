"""Optimality: how near an attack comes to the best that is known, pair by pair (AttackBench, arXiv:2404.19460)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError

# The relative accuracy of norms: a perturbation at a bound is within it.
_SLACK = 1e-5


def envelope(norms: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the smallest norm (n,) of each pair over some attacks.

    Args:
        norms: the norms (n,) of each attack; infinity where it failed. At least one attack.
    """
    return np.asarray(np.min(np.stack(norms), axis=0), np.float64)


def optimality(norms: NDArray[np.float64], best: NDArray[np.float64], bound: float | None = None) -> float | None:
    """Compare an attack's robustness curve with that of the best attacks.

    A robustness curve is the share of pairs that withstand each norm. The measure is the area that the attack takes
    from full robustness over the area that the envelope takes, up to the norm at which the envelope has broken all that
    it breaks. An attack in a ball looks for any success in it; it is measured by its successes within the ball.

    Args:
        norms: (n,), the smallest norm with which the attack breaks each pair; infinity where it failed.
        best: (n,), the envelope, which is nowhere larger.
        bound: the radius of the attack's ball, or None.

    Returns:
        From 0 to 1, where 1 means that no attack needs less on any pair. None if the envelope breaks nothing.

    Raises:
        InputError: a norm is negative or not a number, or is smaller than the envelope.
    """
    own, least = np.asarray(norms, np.float64), np.asarray(best, np.float64)
    if own.shape != least.shape or own.ndim != 1 or not (least >= 0).all() or not (own >= least).all():
        raise InputError("norms of an attack must be numbers that are not smaller than those of the envelope")
    if bound is not None:
        within = bound * (1 + _SLACK)
        broken = int((least <= within).sum())
        return float((own <= within).sum() / broken) if broken else None
    broken_norms = least[np.isfinite(least)]
    if not len(broken_norms):
        return None
    last = broken_norms.max()
    # Exact sums, so that an attack that needs no more than the envelope is at 1 whatever the order of its pairs.
    area = math.fsum(last - broken_norms)
    if area <= _SLACK * last * len(broken_norms):
        # The envelope breaks all pairs at one norm, so that its curve has no area.
        return float((own <= last * (1 + _SLACK)).sum() / len(broken_norms))
    return math.fsum(np.maximum(last - own, 0)) / area
