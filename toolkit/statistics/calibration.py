"""Calibration: the threshold for a target FMR, by its upper bound or by its point estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.bounded import DRAWS, Bound, Members, bound_at, bounded_threshold, rounded_down
from toolkit.statistics.verification import OperatingPoint, check_pairs, fmr_fnmr, fnmr_at_fmr

ThresholdRule = Literal["upper bound", "point estimate"]
# Rule of three: fewer than 3 / FMR impostor pairs cannot show the FMR, even without a single false match.
_PAIRS_TIMES_FMR = 3


@dataclass(frozen=True)
class Calibration:
    """A threshold for a target FMR.

    Attributes:
        fmr: the target FMR.
        rule: what is at most `fmr` at the threshold: the upper bound of the true FMR, or only the FMR on these pairs
            (the point estimate). The true FMR at a point estimate is above the target about as often as below.
        chosen: the threshold, and the FMR and FNMR that it has on these pairs.
        bound: the upper bound of the true FMR at this threshold.
        point_estimate: the point estimate, for comparison; None if there are fewer than 1 / fmr impostor pairs.
        threshold_interval: the distribution-free two-sided interval, at the same confidence, of the threshold that
            gives this FMR in the population of impostors. It assumes independent pairs.
        impostor: the number of impostor pairs.
    """

    fmr: float
    rule: ThresholdRule
    chosen: OperatingPoint
    bound: Bound
    point_estimate: OperatingPoint | None
    threshold_interval: tuple[float, float]
    impostor: int

    @property
    def said(self) -> str:
        """How the threshold was chosen, in words."""
        if self.rule == "point estimate":
            return f"point estimate for an FMR of {self.fmr:g}, not conservative"
        return f"FMR at most {self.fmr:g} at a confidence of {100 * self.bound.confidence:g} %"


def calibrate(
    distances: NDArray[np.float64],
    genuine: NDArray[np.bool_],
    fmr: float,
    confidence: float = 0.95,
    members: Members | None = None,
    *,
    point_estimate: bool = False,
    seed: int = 0,
    draws: int = DRAWS,
) -> Calibration:
    """Choose the largest threshold that holds the FMR. A pair is judged "same" strictly below the threshold.

    By default the upper bound of the true FMR is at most `fmr`: see `toolkit.statistics.bounded`. Thresholds have six
    digits and are rounded down.

    Args:
        distances: (n,) float64, distances of clean pairs.
        genuine: (n,) bool, True for pairs of one person.
        fmr: the target FMR, between 0 and 1.
        confidence: the one-sided confidence of the bound, at least 0.5 and below 1.
        members: the people in the n pairs; None if every pair is independent of the others.
        point_estimate: hold the FMR on these pairs only. This is not conservative.
        seed: the seed of the bootstrap.
        draws: the number of resamples.

    Raises:
        InsufficientError: there are too few impostor pairs to support the FMR, or no genuine pair, or the threshold
            would not be positive.
        InputError: the arguments are not valid.
    """
    values, labels = check_pairs(distances, genuine)
    estimate = _estimate(values, labels, fmr)
    kind = np.flatnonzero(~labels)
    if members is not None and len(members.numbers) == 2 and (members.numbers[0] == members.numbers[1])[kind].any():
        raise InputError("an impostor pair names the same person twice; correct its label or its names")
    impostors, of_impostors = values[kind], None if members is None else members.at(kind)
    if point_estimate:
        chosen = _enough(estimate, len(impostors), fmr)
        bound = bound_at(impostors, of_impostors, chosen.threshold, fmr, confidence, seed=seed, draws=draws)
    else:
        threshold, bound = bounded_threshold(
            impostors, of_impostors, fmr, confidence, name="an FMR", what="impostor pairs", seed=seed, draws=draws
        )
        chosen = _point(values, labels, threshold)
    if chosen.threshold <= 0:
        zeros = np.count_nonzero(impostors <= 0)
        raise InsufficientError(
            f"the threshold would be 0, because {zeros} impostor pairs have a distance of 0; "
            "check their labels, or give more pairs"
        )
    interval = _interval(np.sort(impostors), fmr, confidence)
    rule: ThresholdRule = "point estimate" if point_estimate else "upper bound"
    return Calibration(fmr, rule, chosen, bound, estimate, interval, len(impostors))


def _point(values: NDArray[np.float64], labels: NDArray[np.bool_], threshold: float) -> OperatingPoint:
    fmr, fnmr = fmr_fnmr(values, labels, threshold)
    return OperatingPoint(threshold, fnmr, fmr)


def _enough(estimate: OperatingPoint | None, impostors: int, fmr: float) -> OperatingPoint:
    """Return the point estimate, or raise InsufficientError if the pairs are too few for it."""
    needed = math.ceil(_PAIRS_TIMES_FMR / fmr)
    if impostors < needed or estimate is None:
        raise InsufficientError(
            f"an FMR of {fmr:g} needs at least {needed} impostor pairs (rule of three), but there are {impostors}; "
            f"these support an FMR of {_PAIRS_TIMES_FMR / impostors:.2g} at best"
        )
    return estimate


def _estimate(values: NDArray[np.float64], labels: NDArray[np.bool_], fmr: float) -> OperatingPoint | None:
    """Return the point estimate with its threshold rounded down."""
    point = fnmr_at_fmr(values, labels, fmr)
    if point is None:
        return None
    return _point(values, labels, rounded_down(point.threshold))


def _interval(impostors: NDArray[np.float64], fmr: float, confidence: float) -> tuple[float, float]:
    """Return the order statistics that enclose the true quantile.

    The number of impostors below the true quantile is binomial (Conover 1999, section 3.2).
    """
    low, high = stats.binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], len(impostors), fmr).astype(int)
    # No order statistic exists below the smallest distance. A threshold of zero certainly has no false match.
    lower = float(impostors[low - 1]) if low > 0 else 0.0
    return lower, float(impostors[min(high, len(impostors) - 1)])
