"""The threshold that gives a stated FMR, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InsufficientError
from toolkit.statistics.verification import OperatingPoint, fnmr_at_fmr

# Rule of three: fewer impostor pairs than this over the FMR could not show it even without a single false match.
_PAIRS_TIMES_FMR = 3


@dataclass(frozen=True)
class Calibration:
    """A threshold for a stated FMR.

    Attributes:
        fmr: the FMR asked for.
        point: the threshold on these pairs, with the FMR reached and the FNMR that it costs.
        threshold_interval: distribution-free 95 % interval of the threshold that has this FMR among all impostors.
        impostor: number of impostor pairs.
    """

    fmr: float
    point: OperatingPoint
    threshold_interval: tuple[float, float]
    impostor: int


def calibrate(
    distances: NDArray[np.float64], genuine: NDArray[np.bool_], fmr: float, confidence: float = 0.95
) -> Calibration:
    """Choose the largest threshold whose FMR on these pairs is at most `fmr`.

    The interval is between order statistics of the impostors' distances: the number of impostors below the true
    quantile is binomial (Conover 1999, section 3.2). It assumes that pairs are independent; where people occur in
    many pairs it is too narrow.

    Args:
        distances: (n,), of clean pairs.
        genuine: (n,), whether each pair is of one person.
        fmr: between 0 and 1.
        confidence: of the interval.

    Raises:
        InsufficientError: there are fewer than 3 / fmr impostor pairs, or no genuine one.
        InputError: the arguments are not valid.
    """
    impostors = np.sort(np.asarray(distances, np.float64)[~genuine])
    needed = math.ceil(_PAIRS_TIMES_FMR / fmr) if fmr > 0 else 0
    if len(impostors) < needed:
        raise InsufficientError(
            f"an FMR of {fmr:g} needs at least {needed} impostor pairs (rule of three), and there are "
            f"{len(impostors)}; these support an FMR of {_PAIRS_TIMES_FMR / max(len(impostors), 1):.2g} at best"
        )
    point = fnmr_at_fmr(distances, genuine, fmr)
    if point is None:  # cannot be: it asks for 1 / fmr pairs, and there are three times as many
        raise InsufficientError(f"too few impostor pairs for an FMR of {fmr:g}")
    low, high = stats.binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], len(impostors), fmr).astype(int)
    # Below the lowest impostor nothing is known: a threshold of zero has no false match.
    lower = float(impostors[low - 1]) if low > 0 else 0.0
    return Calibration(fmr, point, (lower, float(impostors[min(high, len(impostors) - 1)])), len(impostors))
