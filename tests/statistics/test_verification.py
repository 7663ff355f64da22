from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import (
    OperatingPoint,
    best_threshold,
    cross_validated_accuracy,
    d_prime,
    eer,
    fmr_fnmr,
    fnmr_at_fmr,
    roc,
)

DISTANCES = np.array([0.1, 0.3, 0.5, 0.9, 0.4, 0.9, 1.2, 1.5])
GENUINE = np.array([True] * 4 + [False] * 4)


def gaussian_pairs(count: int, gap: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    genuine = np.arange(2 * count) < count
    return rng.normal(size=2 * count) + np.where(genuine, 0.0, gap), genuine


@st.composite
def labelled(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Few distinct distances, so that ties between and within the kinds are common."""
    kinds = [draw(st.lists(st.integers(0, 6), min_size=1, max_size=12)) for _ in range(2)]
    return np.array(kinds[0] + kinds[1]) / 4, np.array([True] * len(kinds[0]) + [False] * len(kinds[1]))


def test_same_is_strictly_below_the_threshold() -> None:
    fmr, fnmr = fmr_fnmr(DISTANCES, GENUINE, 0.9)
    assert (fmr, fnmr) == (Rate(1, 4), Rate(1, 4))
    fmr, fnmr = fmr_fnmr(DISTANCES, GENUINE, np.nextafter(0.9, 1))
    assert (fmr, fnmr) == (Rate(2, 4), Rate(0, 4))


@given(labelled())
def test_roc_is_the_rates_at_every_threshold(pairs: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    thresholds, fmr, fnmr = roc(*pairs)
    assert (fmr[0], fnmr[0], fmr[-1], fnmr[-1]) == (0, 1, 1, 0)
    for threshold, false_match, false_non_match in zip(thresholds, fmr, fnmr, strict=True):
        rates = fmr_fnmr(*pairs, threshold)
        assert (rates[0].value, rates[1].value) == pytest.approx((false_match, false_non_match))


def test_eer_by_hand() -> None:
    # At 0.9 one of four errs on each side.
    assert eer(DISTANCES, GENUINE) == pytest.approx(0.25)
    # The rates go from (0, 1/2) at 0.5 to (1, 1/2) at 0.6, so the lines meet at 1/2.
    assert eer(np.array([0.1, 0.9, 0.5]), np.array([True, True, False])) == pytest.approx(0.5)
    # From (0, 2/3) at 2 to (1/2, 1/3) at 3: 0 + w/2 = 2/3 - w/3 at w = 0.8.
    assert eer(np.array([1, 2, 4, 2, 5.0]), np.array([True] * 3 + [False] * 2)) == pytest.approx(0.4)
    assert eer(np.array([0.1, 0.2]), np.array([True, False])) == 0
    assert eer(np.array([0.2, 0.1]), np.array([True, False])) == 1


def test_eer_and_d_prime_of_two_gaussians() -> None:
    distances, genuine = gaussian_pairs(200_000, 2.0)
    assert d_prime(distances, genuine) == pytest.approx(2, abs=0.01)
    assert eer(distances, genuine) == pytest.approx(stats.norm.cdf(-1), abs=0.002)


def test_d_prime_of_unequal_spread() -> None:
    # Means 1 and 11, unbiased variances 2 and 18: 10 / sqrt(10).
    distances, genuine = np.array([0.0, 2, 8, 14]), np.array([True, True, False, False])
    assert d_prime(distances, genuine) == pytest.approx(math.sqrt(10))
    assert d_prime(np.array([1.0, 1, 2, 2]), genuine) == math.inf
    with pytest.raises(InsufficientError, match="at least two"):
        d_prime(np.array([1.0, 2, 3]), np.array([True, True, False]))


def test_fnmr_at_fmr_uses_the_largest_threshold_allowed() -> None:
    distances = np.concatenate([np.arange(300) + 1.0, [3.5, 4.0, 4.5]])
    genuine = np.arange(303) >= 300
    point = fnmr_at_fmr(distances, genuine, 0.01)
    assert point is not None
    # Three of 300 impostors (1, 2, 3) may pass; 4 is the largest threshold that does not let the fourth in.
    assert point == OperatingPoint(4.0, Rate(2, 3), Rate(3, 300))


def test_fnmr_at_fmr_is_not_claimed_without_impostors_to_show_it() -> None:
    distances, genuine = gaussian_pairs(99, 2.0)
    assert fnmr_at_fmr(distances, genuine, 0.01) is None
    distances, genuine = gaussian_pairs(100, 2.0)
    assert fnmr_at_fmr(distances, genuine, 0.01) is not None
    assert fnmr_at_fmr(distances, genuine, 0.001) is None


@given(labelled(), st.sampled_from([0.1, 0.25, 0.5]))
def test_fnmr_at_fmr_never_exceeds_the_fmr_when_impostors_tie(
    pairs: tuple[NDArray[np.float64], NDArray[np.bool_]], target: float
) -> None:
    point = fnmr_at_fmr(*pairs, target)
    if point is None:
        assert np.count_nonzero(~pairs[1]) < 1 / target
        return
    assert (point.fmr.value or 0.0) <= target
    above = fmr_fnmr(*pairs, np.nextafter(point.threshold, np.inf))[0].value
    assert above is not None
    assert above > target


@given(labelled())
def test_no_threshold_beats_the_best(pairs: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    distances, genuine = pairs

    def accuracy(threshold: float) -> float:
        return float(((distances < threshold) == genuine).mean())

    best = best_threshold(distances, genuine)
    assert accuracy(best) == max(accuracy(t) for t in roc(distances, genuine)[0])
    shuffled = np.random.default_rng(0).permutation(len(distances))
    assert best_threshold(distances[shuffled], genuine[shuffled]) == best


def test_best_threshold_is_midway_and_the_lowest_of_ties() -> None:
    assert best_threshold(np.array([1.0, 2.0, 4.0]), np.array([True, True, False])) == 3
    # One error each at 1.5 and at 3.5.
    assert best_threshold(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, False])) == 1.5
    # No float lies between these two, and the midpoint must not fall onto the lower one.
    low, high = 1.0, float(np.nextafter(1.0, 2))
    assert low < best_threshold(np.array([low, high]), np.array([True, False])) <= high


def test_leave_one_fold_out_never_sees_its_own_fold() -> None:
    # Each fold is separable, by thresholds that do not fit the other one.
    distances = np.array([1.0, 2.0, 11.0, 12.0])
    genuine = np.array([True, False, True, False])
    result = cross_validated_accuracy(distances, genuine, np.array([7, 7, 9, 9]))
    np.testing.assert_array_equal(result.thresholds, [11.5, 1.5])
    np.testing.assert_array_equal(result.per_fold, [0.5, 0.5])
    assert result.correct == Rate(2, 4)


def test_accuracy_is_the_mean_of_folds() -> None:
    distances = np.array([1.0, 5.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0])
    genuine = np.array([True, False, True, False, True, False, True, False])
    result = cross_validated_accuracy(distances, genuine, np.array([0, 0, 1, 1, 2, 2, 2, 2]))
    np.testing.assert_allclose(result.per_fold, [1, 1, 0.5])
    assert result.accuracy == pytest.approx(2.5 / 3)
    assert result.standard_error == pytest.approx(stats.sem([1, 1, 0.5]))
    assert result.correct == Rate(6, 8)


def test_drawn_folds_are_stratified_and_follow_the_seed() -> None:
    distances, genuine = gaussian_pairs(100, 3.0)
    first, again = (cross_validated_accuracy(distances, genuine, n_folds=10, seed=5) for _ in range(2))
    other = cross_validated_accuracy(distances, genuine, n_folds=10, seed=6)
    np.testing.assert_array_equal(first.thresholds, again.thresholds)
    assert not np.array_equal(first.per_fold, other.per_fold)
    assert first.correct.trials == 200
    # Equal folds: their mean is the share of all pairs.
    assert first.accuracy == pytest.approx(first.correct.value)
    assert first.accuracy == pytest.approx(stats.norm.cdf(1.5), abs=0.05)
    with pytest.raises(InsufficientError, match="folds"):
        cross_validated_accuracy(distances[95:110], genuine[95:110], n_folds=10)


def test_unusable_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="1 of 8 distances are not finite"):
        eer(np.where(np.arange(8) == 2, np.nan, DISTANCES), GENUINE)
    with pytest.raises(InputError, match="must have one length"):
        eer(DISTANCES, GENUINE.astype(int))
    with pytest.raises(InsufficientError, match="both kinds"):
        best_threshold(DISTANCES[:4], GENUINE[:4])
    with pytest.raises(InputError, match="FMR"):
        fnmr_at_fmr(DISTANCES, GENUINE, 1.0)
    with pytest.raises(InputError):
        roc(np.ones((2, 2)), np.array([[True, False], [True, False]]))
    with pytest.raises(InputError):
        fmr_fnmr(DISTANCES, GENUINE[:-1], 1.0)
    with pytest.raises(InsufficientError):
        best_threshold(DISTANCES[4:], GENUINE[4:])
    for fmr in (0.0, -0.1, 1.5):
        with pytest.raises(InputError):
            fnmr_at_fmr(DISTANCES, GENUINE, fmr)


def test_whole_numbers_are_distances_too() -> None:
    assert fmr_fnmr([1, 3], [True, False], 2) == (Rate(0, 1), Rate(0, 1))  # type: ignore[arg-type]
    assert best_threshold(np.array([1, 2]), np.array([True, False])) == 1.5


def test_two_pairs_of_each_kind_are_enough_for_d_prime() -> None:
    genuine = np.array([True, True, False, False])
    assert d_prime(np.array([0.0, 2.0, 10.0, 12.0]), genuine) == pytest.approx(10 / math.sqrt(2))
    assert d_prime(np.array([3.0, 3.0, 3.0, 3.0]), genuine) == 0
    with pytest.raises(InsufficientError):
        d_prime(np.array([1.0, 2.0, 3.0]), np.array([True, False, False]))


def test_where_all_or_none_are_best_accepted_the_threshold_is_at_the_end() -> None:
    # Every impostor is nearer than the one genuine pair: three errors less if nobody is accepted.
    assert best_threshold(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, False, True])) == 1.0
    largest = best_threshold(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, True, True]))
    assert largest == np.nextafter(4.0, np.inf)


def test_a_held_out_distance_at_the_threshold_is_another_person() -> None:
    # The other fold's threshold is 1.5, midway between 1 and 2, where the held out impostor lies.
    distances, genuine = np.array([1.0, 2.0, 1.0, 1.5]), np.array([True, False, True, False])
    result = cross_validated_accuracy(distances, genuine, np.array([0, 0, 1, 1]))
    assert result.thresholds[1] == 1.5
    assert result.correct == Rate(4, 4)


def test_ten_folds_are_drawn_from_seed_0_unless_it_is_told() -> None:
    distances, genuine = gaussian_pairs(60, 1.0)
    default, told = (cross_validated_accuracy(distances, genuine, **k) for k in ({}, {"n_folds": 10, "seed": 0}))
    np.testing.assert_array_equal(default.per_fold, told.per_fold)
    np.testing.assert_array_equal(default.thresholds, told.thresholds)


def test_uneven_kinds_are_spread_over_the_folds() -> None:
    # 5 genuine pairs in 2 folds are 3 and 2, and so are 5 impostors.
    distances, genuine = gaussian_pairs(5, 9.0)
    result = cross_validated_accuracy(distances, genuine, n_folds=2)
    assert len(result.per_fold) == 2
    assert result.correct == Rate(10, 10)


@pytest.mark.parametrize("genuine", [3, 17])
def test_folds_need_a_pair_of_each_kind_in_each(genuine: int) -> None:
    labels = np.arange(20) < genuine
    distances = np.where(labels, 0.0, 9.0) + np.arange(20) / 100
    assert len(cross_validated_accuracy(distances, labels, n_folds=3).per_fold) == 3
    for folds in (1, 4):
        with pytest.raises(InsufficientError):
            cross_validated_accuracy(distances, labels, n_folds=folds)


def test_folds_are_one_whole_number_for_each_pair() -> None:
    for folds in (np.zeros(7, int), np.arange(8.0) % 2):
        with pytest.raises(InputError):
            cross_validated_accuracy(DISTANCES, GENUINE, folds)
    with pytest.raises(InsufficientError):
        cross_validated_accuracy(DISTANCES, GENUINE, np.zeros(8, int))


def test_one_kind_of_pairs_has_one_error_rate() -> None:
    assert fmr_fnmr(DISTANCES[:4], GENUINE[:4], 0.5) == (Rate(0, 0), Rate(2, 4))
    assert fmr_fnmr(DISTANCES[4:], GENUINE[4:], 0.5) == (Rate(1, 4), Rate(0, 0))
