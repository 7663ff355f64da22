"""Calibration: the threshold that gives a target FMR, with a confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InsufficientError
from toolkit.statistics.verification import OperatingPoint, fnmr_at_fmr

# Rule of three: fewer than 3 / FMR impostor pairs cannot show the FMR, even without a single false match.
_PAIRS_TIMES_FMR = 3


@dataclass(frozen=True)
class Calibration:
    """A threshold for a target FMR.

    Attributes:
        fmr: the target FMR.
        point: the threshold, and the FMR and FNMR that it has on these pairs.
        threshold_interval: the distribution-free 95 % interval of the threshold that gives this FMR in the population
            of impostors.
        impostor: the number of impostor pairs.
    """

    fmr: float
    point: OperatingPoint
    threshold_interval: tuple[float, float]
    impostor: int


def calibrate(
    distances: NDArray[np.float64], genuine: NDArray[np.bool_], fmr: float, confidence: float = 0.95
) -> Calibration:
    """Choose the largest threshold whose FMR on these pairs is at most `fmr`.

    The limits of the interval are order statistics of the impostor distances, because the number of impostors below
    the true quantile is binomial (Conover 1999, section 3.2). The interval assumes independent pairs. It is too narrow
    if people occur in many pairs.

    Args:
        distances: (n,) float64, distances of clean pairs.
        genuine: (n,) bool, True for pairs of one person.
        fmr: the target FMR, between 0 and 1.
        confidence: the confidence of the interval, between 0 and 1.

    Raises:
        InsufficientError: there are fewer than 3 / fmr impostor pairs, or no genuine pair.
        InputError: the arguments are not valid.
    """
    impostors = np.sort(np.asarray(distances, np.float64)[~genuine])
    needed = math.ceil(_PAIRS_TIMES_FMR / fmr) if fmr > 0 else 0
    if len(impostors) < needed:
        raise InsufficientError(
            f"an FMR of {fmr:g} needs at least {needed} impostor pairs (rule of three), but there are "
            f"{len(impostors)}; these support an FMR of {_PAIRS_TIMES_FMR / max(len(impostors), 1):.2g} at best"
        )
    point = fnmr_at_fmr(distances, genuine, fmr)
    if point is None:  # unreachable: `fnmr_at_fmr` needs 1 / fmr pairs, and the check above ensures 3 / fmr
        raise InsufficientError(f"there are too few impostor pairs for an FMR of {fmr:g}")
    low, high = stats.binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], len(impostors), fmr).astype(int)
    # No order statistic exists below the smallest distance. A threshold of zero certainly has no false match.
    lower = float(impostors[low - 1]) if low > 0 else 0.0
    return Calibration(fmr, point, (lower, float(impostors[min(high, len(impostors) - 1)])), len(impostors))
