"""Clean verification: error rates of distances with known labels, as in ISO/IEC 19795-1. Never of attacked probes.

Everywhere: `distances` is (n,) float, finite; `genuine` is (n,) bool, True for pairs of one person; a pair is
judged "same" when its distance is strictly below the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.intervals import Rate

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold with the FNMR and the FMR that it gives on the pairs it was chosen on."""

    threshold: float
    fnmr: Rate
    fmr: Rate


@dataclass(frozen=True)
class CrossValidation:
    """Accuracy on held-out folds, each with the threshold chosen on the others.

    `accuracy` is the mean of `per_fold` (how LFW is reported); `standard_error` is that mean's, from the spread
    between folds; `correct` counts every pair once.
    """

    accuracy: float
    standard_error: float
    per_fold: Floats
    thresholds: Floats
    correct: Rate


def check_pairs(distances: Floats, genuine: Bools, *, both: bool = True) -> tuple[Floats, Bools]:
    """Distances as float64 and labels, checked to fit together; with `both`, that neither kind is missing.

    Raises:
        InputError, InsufficientError: they do not.
    """
    values, labels = np.asarray(distances, np.float64), np.asarray(genuine)
    if values.ndim != 1 or values.shape != labels.shape or labels.dtype != np.bool_:
        raise InputError(
            f"distances {values.shape} and labels {labels.shape} {labels.dtype} must be lists of one length and bool"
        )
    if not np.all(np.isfinite(values)):
        raise InputError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} distances are not finite")
    if both and (labels.all() or not labels.any()):
        raise InsufficientError(
            f"{np.count_nonzero(labels)} genuine and {np.count_nonzero(~labels)} impostor pairs: both kinds are needed"
        )
    return values, labels


def fmr_fnmr(distances: Floats, genuine: Bools, threshold: float) -> tuple[Rate, Rate]:
    """FMR (impostors judged same) and FNMR (genuine pairs judged different) at a threshold.

    Raises:
        InputError: the arrays do not fit together.
    """
    values, labels = check_pairs(distances, genuine, both=False)
    same = values < threshold
    return (
        Rate(int(np.count_nonzero(same & ~labels)), int(np.count_nonzero(~labels))),
        Rate(int(np.count_nonzero(~same & labels)), int(np.count_nonzero(labels))),
    )


def roc(distances: Floats, genuine: Bools) -> tuple[Floats, Floats, Floats]:
    """Every operating point: thresholds rising, FMR rising from 0, FNMR falling from 1.

    Returns:
        thresholds (m,): the distinct distances and, last, infinity; fmr (m,) and fnmr (m,) at each.

    Raises:
        InputError, InsufficientError: the arrays do not fit together; one kind of pair is missing.
    """
    values, labels = check_pairs(distances, genuine)
    thresholds = np.append(np.unique(values), np.inf)
    accepted = [np.searchsorted(np.sort(values[kind]), thresholds, side="left") for kind in (~labels, labels)]
    return (
        thresholds,
        accepted[0] / np.count_nonzero(~labels),
        1 - accepted[1] / np.count_nonzero(labels),
    )


def eer(distances: Floats, genuine: Bools) -> float:
    """Equal error rate in [0, 1].

    FMR - FNMR rises from -1 to 1 along the ROC; between the two neighboring operating points where it changes its
    sign both rates are interpolated linearly, and the EER is where the two lines meet.

    Raises:
        InputError, InsufficientError: the arrays do not fit together; one kind of pair is missing.
    """
    _, fmr, fnmr = roc(distances, genuine)
    gap = fmr - fnmr
    after = int(np.argmax(gap >= 0))
    weight = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(fmr[after - 1] + weight * (fmr[after] - fmr[after - 1]))


def d_prime(distances: Floats, genuine: Bools) -> float:
    """Separation of the two kinds: |mu_i - mu_g| / sqrt((var_g + var_i) / 2), with unbiased variances.

    Infinite when neither kind varies and the means differ.

    Raises:
        InputError, InsufficientError: the arrays do not fit together; a kind has fewer than two pairs.
    """
    values, labels = check_pairs(distances, genuine)
    same, different = values[labels], values[~labels]
    if min(len(same), len(different)) < 2:
        raise InsufficientError("d' needs at least two genuine and two impostor pairs")
    gap = abs(float(different.mean() - same.mean()))
    spread = math.sqrt((float(same.var(ddof=1)) + float(different.var(ddof=1))) / 2)
    if spread == 0:
        return math.inf if gap else 0.0
    return gap / spread


def fnmr_at_fmr(distances: Floats, genuine: Bools, fmr: float) -> OperatingPoint | None:
    """FNMR at the largest threshold whose FMR on these impostors is at most `fmr`.

    Returns:
        The operating point with its achieved FMR, or None when fewer than 1 / fmr impostor pairs cannot show it.

    Raises:
        InputError, InsufficientError: `fmr` is not between 0 and 1; the arrays do not fit together; one kind of pair
            is missing.
    """
    values, labels = check_pairs(distances, genuine)
    if not 0 < fmr < 1:
        raise InputError(f"the FMR asked for is {fmr}; it must lie between 0 and 1")
    impostors = np.sort(values[~labels])
    # 1e-9: 0.01 * 300 must count as 3 whatever its last bit says.
    allowed = math.floor(fmr * len(impostors) + 1e-9)
    if allowed < 1:
        return None
    threshold = float(impostors[allowed])
    achieved, missed = fmr_fnmr(values, labels, threshold)
    return OperatingPoint(threshold, missed, achieved)


def best_threshold(distances: Floats, genuine: Bools) -> float:
    """The threshold of highest accuracy, midway between neighboring distances; the lowest of equally good ones.

    The lowest, because it errs on the side of FNMR, and so that the result does not depend on the order of pairs.
    When it is best to accept none (all), it is the smallest distance (just above the largest).

    Raises:
        InputError, InsufficientError: the arrays do not fit together; one kind of pair is missing.
    """
    values, labels = check_pairs(distances, genuine)
    distinct, group = np.unique(values, return_inverse=True)
    gain = np.bincount(group, np.where(labels, 1, -1), len(distinct))
    # Accepting the k smallest distinct distances gains (genuine - impostor) correct decisions over accepting none.
    accepted = int(np.argmax(np.append(0, np.cumsum(gain))))
    if accepted == 0:
        return float(distinct[0])
    below = float(distinct[accepted - 1])
    if accepted == len(distinct):
        return float(np.nextafter(below, np.inf))
    middle = below + (float(distinct[accepted]) - below) / 2
    return middle if middle > below else float(distinct[accepted])


def cross_validated_accuracy(
    distances: Floats,
    genuine: Bools,
    folds: NDArray[np.int64] | None = None,
    n_folds: int = 10,
    seed: int = 0,
) -> CrossValidation:
    """Accuracy at thresholds that never saw the pairs they judge.

    Args:
        distances: see the module.
        genuine: see the module.
        folds: (n,) int fold of each pair (LFW: its set), each left out once in rising order; None to draw
            `n_folds` folds with equal shares of both kinds.
        n_folds: number of folds, only without `folds`.
        seed: of the draw, only without `folds`.

    Raises:
        InputError, InsufficientError: the arrays do not fit together; too few folds, or too few pairs for them.
    """
    values, labels = check_pairs(distances, genuine)
    if folds is None:
        folds = _stratified_folds(labels, n_folds, np.random.default_rng(seed))
    parts = np.asarray(folds)
    if parts.shape != values.shape or not np.issubdtype(parts.dtype, np.integer):
        raise InputError(f"folds {parts.shape} {parts.dtype} must be one integer per pair, {values.shape}")
    names = np.unique(parts)
    if len(names) < 2:
        raise InsufficientError(f"cross-validation needs at least 2 folds, and there are {len(names)}")
    thresholds = np.array([best_threshold(values[parts != name], labels[parts != name]) for name in names])
    correct = (values < thresholds[np.searchsorted(names, parts)]) == labels
    per_fold = np.array([correct[parts == name].mean() for name in names])
    return CrossValidation(
        accuracy=float(per_fold.mean()),
        standard_error=float(per_fold.std(ddof=1) / math.sqrt(len(names))),
        per_fold=per_fold,
        thresholds=thresholds,
        correct=Rate(int(np.count_nonzero(correct)), len(values)),
    )


def _stratified_folds(labels: Bools, n_folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    smallest = min(np.count_nonzero(labels), np.count_nonzero(~labels))
    if not 2 <= n_folds <= smallest:
        raise InsufficientError(f"{n_folds} folds cannot be made of {smallest} pairs of one kind; use 2 to {smallest}")
    folds = np.empty(len(labels), np.int64)
    for kind in (labels, ~labels):
        folds[rng.permutation(np.flatnonzero(kind))] = np.arange(np.count_nonzero(kind)) % n_folds
    return folds
