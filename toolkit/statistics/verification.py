"""Verification error rates of distances with known labels (ISO/IEC 19795-1), for clean pairs only.

In all functions, `distances` is (n,) float and finite, and `genuine` is (n,) bool and True for pairs of one person. A
pair is judged "same" if its distance is strictly below the threshold.
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
    """A threshold, and the FNMR and FMR on the pairs that it was chosen on."""

    threshold: float
    fnmr: Rate
    fmr: Rate


@dataclass(frozen=True)
class CrossValidation:
    """Accuracy on held-out folds. The threshold for each fold is chosen on the other folds.

    Attributes:
        accuracy: the mean of `per_fold`, as in LFW's protocol.
        standard_error: the standard error of this mean, from the spread between folds.
        per_fold: (k,) accuracy on each fold.
        thresholds: (k,) threshold used for each fold.
        correct: correct decisions over all pairs; each pair counts once.
    """

    accuracy: float
    standard_error: float
    per_fold: Floats
    thresholds: Floats
    correct: Rate


def check_pairs(distances: Floats, genuine: Bools, *, both: bool = True) -> tuple[Floats, Bools]:
    """Check that distances and labels fit together. Return the distances as float64, and the labels.

    Args:
        distances: (n,) float, finite.
        genuine: (n,) bool.
        both: require at least one genuine and one impostor pair.

    Raises:
        InputError: the arrays do not fit together, or a distance is not finite.
        InsufficientError: `both` is set and one kind of pair is missing.
    """
    values, labels = np.asarray(distances, np.float64), np.asarray(genuine)
    if values.ndim != 1 or values.shape != labels.shape or labels.dtype != np.bool_:
        raise InputError(
            f"distances {values.shape} and labels {labels.shape} {labels.dtype} must have one length, and labels must "
            "be bool"
        )
    if not np.all(np.isfinite(values)):
        raise InputError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} distances are not finite")
    if both and (labels.all() or not labels.any()):
        raise InsufficientError(
            f"there are {np.count_nonzero(labels)} genuine and {np.count_nonzero(~labels)} impostor pairs; "
            "both kinds are needed"
        )
    return values, labels


def fmr_fnmr(distances: Floats, genuine: Bools, threshold: float) -> tuple[Rate, Rate]:
    """Return FMR (impostor pairs judged "same") and FNMR (genuine pairs judged "different") at a threshold.

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
    """Return every operating point: rising thresholds, FMR rising from 0, FNMR falling from 1.

    Returns:
        thresholds (m,), which are the distinct distances followed by infinity; fmr (m,) and fnmr (m,) at each.

    Raises:
        InputError: the arrays do not fit together.
        InsufficientError: one kind of pair is missing.
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
    """Return the equal error rate in [0, 1].

    FMR - FNMR rises from -1 to 1 along the ROC. Both rates are interpolated linearly between the two neighboring
    operating points where the difference changes its sign. The EER is where the two lines meet.

    Raises:
        InputError: the arrays do not fit together.
        InsufficientError: one kind of pair is missing.
    """
    _, fmr, fnmr = roc(distances, genuine)
    gap = fmr - fnmr
    after = int(np.argmax(gap >= 0))
    weight = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(fmr[after - 1] + weight * (fmr[after] - fmr[after - 1]))


def d_prime(distances: Floats, genuine: Bools) -> float:
    """Return d', the separation of genuine and impostor distances.

    d' = |mu_i - mu_g| / sqrt((var_g + var_i) / 2), with unbiased variances. If both variances are zero, the result is
    infinity if the means differ, and 0 otherwise.

    Raises:
        InputError: the arrays do not fit together.
        InsufficientError: there are fewer than two genuine or two impostor pairs.
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
    """Return the operating point at the largest threshold whose FMR on these pairs is at most `fmr`.

    This is a point estimate: the true FMR at the threshold is above `fmr` about as often as below.

    Returns:
        The operating point with its achieved FMR; None if there are fewer than 1 / fmr impostor pairs.

    Raises:
        InputError: `fmr` is not between 0 and 1, or the arrays do not fit together.
        InsufficientError: one kind of pair is missing.
    """
    values, labels = check_pairs(distances, genuine)
    if not 0 < fmr < 1:
        raise InputError(f"the target FMR is {fmr}; it must be between 0 and 1")
    impostors = np.sort(values[~labels])
    # The tolerance of 1e-9 absorbs rounding errors: 0.01 * 300 must count as 3.
    allowed = math.floor(fmr * len(impostors) + 1e-9)
    if allowed < 1:
        return None
    threshold = float(impostors[allowed])
    achieved, missed = fmr_fnmr(values, labels, threshold)
    return OperatingPoint(threshold, missed, achieved)


def best_threshold(distances: Floats, genuine: Bools) -> float:
    """Return the threshold with the highest accuracy, midway between two neighboring distances.

    Of several equally good thresholds, the lowest is returned. It favors FNMR over FMR, and it makes the result
    independent of the order of pairs. If it is best to accept no pair, the threshold is the smallest distance. If it
    is best to accept all pairs, it is just above the largest distance.

    Raises:
        InputError: the arrays do not fit together.
        InsufficientError: one kind of pair is missing.
    """
    values, labels = check_pairs(distances, genuine)
    distinct, group = np.unique(values, return_inverse=True)
    gain = np.bincount(group, np.where(labels, 1, -1), len(distinct))
    # Accepting the k smallest distinct distances gives (genuine - impostor) more correct decisions than accepting none.
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
    """Return the cross-validated accuracy: each threshold is chosen without the pairs that it judges.

    Args:
        distances: (n,) float, finite.
        genuine: (n,) bool, True for pairs of one person.
        folds: (n,) int, the fold of each pair (in LFW, its set). Each fold is held out once, in rising order. None
            draws `n_folds` folds with equal shares of genuine and impostor pairs.
        n_folds: the number of folds; used only without `folds`.
        seed: the seed of the draw; used only without `folds`.

    Raises:
        InputError: the arrays do not fit together.
        InsufficientError: there are fewer than two folds, or too few pairs for the folds.
    """
    values, labels = check_pairs(distances, genuine)
    if folds is None:
        folds = _stratified_folds(labels, n_folds, np.random.default_rng(seed))
    parts = np.asarray(folds)
    if parts.shape != values.shape or not np.issubdtype(parts.dtype, np.integer):
        raise InputError(f"folds {parts.shape} {parts.dtype} must have one integer per pair, {values.shape}")
    names = np.unique(parts)
    if len(names) < 2:
        raise InsufficientError(f"cross-validation needs at least 2 folds, but there are {len(names)}")
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
        raise InsufficientError(f"{smallest} pairs of one kind cannot fill {n_folds} folds; use 2 to {smallest} folds")
    folds = np.empty(len(labels), np.int64)
    for kind in (labels, ~labels):
        folds[rng.permutation(np.flatnonzero(kind))] = np.arange(np.count_nonzero(kind)) % n_folds
    return folds
