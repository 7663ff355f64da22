"""ASR against the norm of the perturbation: the whole curve, and its value at a budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.statistics.intervals import Rate


def asr_curve(norms: NDArray[np.float64], eligible: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of eligible pairs that is broken within each norm.

    Args:
        norms: (k,) norms of the successes only, finite and not negative; any order.
        eligible: number of pairs that the target decided correctly before the attack; the pairs without
            success count here, so the curve ends at k / eligible and not at 1.

    Returns:
        (k,) norms sorted, and (k,) float64 shares in [0, 1]: entry i is the ASR at budget norms[i]. Equal norms
        have the same share. Both are empty when nothing succeeded.

    Raises:
        InputError: a norm is not usable, or there are more successes than eligible pairs.
    """
    successes = np.sort(np.asarray(norms, np.float64))
    if successes.ndim != 1 or not np.all(np.isfinite(successes) & (successes >= 0)):
        raise InputError("norms of successes must be a list of finite numbers that are not negative")
    if len(successes) > eligible:
        raise InputError(f"there are {len(successes)} successes, but only {eligible} eligible pairs")
    return successes, np.searchsorted(successes, successes, side="right") / max(eligible, 1)


def success_at_budget(norms: NDArray[np.float64], success: NDArray[np.bool_], budget: float) -> Rate:
    """The share of eligible pairs with success at norm <= budget.

    Args:
        norms: (n,) norms, one per eligible pair; NaN where the attack found nothing.
        success: (n,) bool, False too where crafting failed: a failed attack is not a missing one.
        budget: largest norm that counts, in the unit of `norms`; infinity for "any".

    Raises:
        InputError: the arrays do not fit together, a success has no norm, or the budget is negative or NaN.
    """
    values, hit = np.asarray(norms, np.float64), np.asarray(success)
    if values.ndim != 1 or values.shape != hit.shape or hit.dtype != np.bool_:
        raise InputError(
            f"norms {values.shape} and success {hit.shape} {hit.dtype} must be lists of one length and bool"
        )
    if not budget >= 0:
        raise InputError(f"the budget is {budget}; it must be a norm from 0 to infinity")
    if not np.all(np.isfinite(values[hit]) & (values[hit] >= 0)):
        raise InputError("every success needs a finite norm that is not negative")
    return Rate(int(np.count_nonzero(values[hit] <= budget)), len(values))
