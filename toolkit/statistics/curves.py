"""The attack success rate (ASR) as a function of the perturbation norm: the curve, and its value at a budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.statistics.intervals import Rate


def asr_curve(norms: NDArray[np.float64], eligible: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of eligible pairs that the attack breaks within each norm.

    Args:
        norms: (k,) norms of the successes only, in any order; finite and not negative.
        eligible: the number of pairs that the target decided correctly before the attack. Pairs without success are
            included, so the curve ends at k / eligible, not at 1.

    Returns:
        (k,) sorted norms, and (k,) float64 shares in [0, 1]. Entry i is the ASR at budget norms[i]. Equal norms have
        the same share. Both arrays are empty if nothing succeeded.

    Raises:
        InputError: a norm is negative or not finite, or there are more successes than eligible pairs.
    """
    successes = np.sort(np.asarray(norms, np.float64))
    if successes.ndim != 1 or not np.all(np.isfinite(successes) & (successes >= 0)):
        raise InputError("norms of successes must be a list of finite numbers that are not negative")
    if len(successes) > eligible:
        raise InputError(f"there are {len(successes)} successes, but only {eligible} eligible pairs")
    return successes, np.searchsorted(successes, successes, side="right") / max(eligible, 1)


def success_at_budget(norms: NDArray[np.float64], success: NDArray[np.bool_], budget: float) -> Rate:
    """Return the share of eligible pairs that the attack breaks with a norm of at most `budget`.

    Args:
        norms: (n,) norms, one per eligible pair; NaN if the attack found nothing.
        success: (n,) bool. Pairs for which crafting failed count as False, not as missing.
        budget: the largest norm that counts, in the unit of `norms`; infinity for no limit.

    Raises:
        InputError: the arrays do not fit together, a success has no norm, or the budget is negative or NaN.
    """
    values, hit = np.asarray(norms, np.float64), np.asarray(success)
    if values.ndim != 1 or values.shape != hit.shape or hit.dtype != np.bool_:
        raise InputError(
            f"norms {values.shape} and success {hit.shape} {hit.dtype} must have one length, and success must be bool"
        )
    if not budget >= 0:
        raise InputError(f"the budget is {budget}; it must be a norm from 0 to infinity")
    if not np.all(np.isfinite(values[hit]) & (values[hit] >= 0)):
        raise InputError("every success needs a finite norm that is not negative")
    return Rate(int(np.count_nonzero(values[hit] <= budget)), len(values))
