"""Thresholds for a stated FMR: a known quantile, an interval that covers, and a refusal where pairs are too few."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.bounded import Members, bound_at, bounded_threshold
from toolkit.statistics.calibration import calibrate
from toolkit.statistics.intervals import Rate


def scores(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Genuine distances around 1, impostors normal around 2."""
    d = np.concatenate([rng.normal(1, 0.1, 50), rng.normal(2, 0.2, n)])
    return d, np.arange(50 + n) < 50


def test_the_interval_covers_the_true_quantile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = stats.norm.ppf(0.01, 2, 0.2)
    results = [calibrate(*scores(rng, 1500), fmr=0.01, point_estimate=True) for _ in range(300)]
    covered = np.mean([low <= truth <= high for low, high in (r.threshold_interval for r in results)])
    assert covered >= 0.93
    assert np.mean([r.chosen.threshold for r in results]) == pytest.approx(truth, abs=0.02)


def test_the_fmr_on_the_pairs_is_held() -> None:
    d, genuine = scores(np.random.default_rng(1), 1000)
    result = calibrate(d, genuine, fmr=0.01)
    assert result.point_estimate is not None
    assert result.rule == "upper bound"
    # Of 1,000 four may be accepted: the bound of five is 1.05 %.
    assert (result.chosen.fmr, result.point_estimate.fmr) == (Rate(4, 1000), Rate(10, 1000))
    assert result.bound.upper == pytest.approx(Rate(4, 1000).upper_bound())
    assert result.bound.upper <= 0.01 < Rate(5, 1000).upper_bound()
    assert Rate(int(np.sum(d[~genuine] < result.chosen.threshold)), 1000) == result.chosen.fmr, "strictly below"
    low, high = result.threshold_interval
    assert low < result.point_estimate.threshold < high
    assert result.chosen.fnmr.value is not None
    assert result.said == "FMR at most 0.01 at a confidence of 95 %"


def test_a_point_estimate_names_itself_and_shows_how_high_the_rate_may_be() -> None:
    result = calibrate(*scores(np.random.default_rng(1), 1000), fmr=0.01, point_estimate=True)
    assert result.rule == "point estimate"
    assert result.chosen == result.point_estimate
    assert (result.bound.binding, result.bound.upper) == (None, pytest.approx(Rate(10, 1000).upper_bound()))
    assert result.said == "point estimate for an FMR of 0.01, not conservative"


def test_a_threshold_of_zero_is_refused() -> None:
    d, genuine = numbered(300)
    with pytest.raises(InsufficientError, match="would be 0, because 1 impostor pairs have a distance of 0"):
        calibrate(np.where(d <= 2, np.maximum(d - 1, 0) / 2, d), genuine, 0.01)


def test_people_who_contradict_labels_are_refused() -> None:
    people = np.arange(301)
    with pytest.raises(InputError, match="names the same person twice"):
        calibrate(*numbered(300), 0.01, members=Members("people", (people, people)))


def test_too_few_impostors_are_refused_with_what_they_support() -> None:
    with pytest.raises(InsufficientError, match=r"at least 2995 impostor pairs.*are 300.*support an FMR of 0\.0099 at"):
        calibrate(*scores(np.random.default_rng(2), 300), fmr=1e-3)
    with pytest.raises(InsufficientError, match=r"at least 3000 impostor pairs.*there are 300.*support an FMR"):
        calibrate(*scores(np.random.default_rng(2), 300), fmr=1e-3, point_estimate=True)


def numbered(n: int) -> tuple[np.ndarray, np.ndarray]:
    """One genuine pair and impostors at the distances 1 to n, so that every order statistic is its own place."""
    return np.arange(n + 1.0), np.arange(n + 1) == 0


@given(
    st.sampled_from([0.01, 0.05, 0.2, 0.5]),
    st.integers(0, 300),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_each_end_is_the_nearest_order_statistic_that_errs_seldom_enough(
    fmr: float, more: int, confidence: float
) -> None:
    """The impostors below the true quantile are binomial: neither end is too short, nor longer than it must be."""
    n = math.ceil(3 / fmr) + more
    low, high = calibrate(*numbered(n), fmr, confidence, point_estimate=True).threshold_interval
    below, tail = stats.binom(n, fmr), (1 - confidence) / 2
    # The threshold lies beyond the upper end where `high` or more impostors are below it.
    assert below.sf(high - 1) <= tail < below.sf(high - 2) or high == n
    # It lies before the lower end where fewer than `low` are.
    assert below.cdf(low - 1) <= tail < below.cdf(low)


def test_the_interval_is_of_95_percent_unless_it_is_told() -> None:
    default, narrow = calibrate(*numbered(400), 0.05), calibrate(*numbered(400), 0.05, 0.8)
    assert default == calibrate(*numbered(400), 0.05, 0.95)
    assert default.threshold_interval[0] < narrow.threshold_interval[0]
    assert narrow.threshold_interval[1] < default.threshold_interval[1]


def test_the_interval_ends_where_the_impostors_do() -> None:
    # Of 4 impostors at an FMR of 90 % all may lie below the quantile; nothing is known beyond the last.
    assert calibrate(*numbered(4), 0.9, point_estimate=True).threshold_interval == (2.0, 4.0)
    # Of 300 at 1 % none may: below the first, only a threshold of zero is known to have no false match.
    assert calibrate(*numbered(300), 0.01).threshold_interval[0] == 0.0


def test_a_calibration_says_what_it_rests_on() -> None:
    result = calibrate(*numbered(300), 0.01)
    assert result.point_estimate is not None
    assert (result.fmr, result.impostor, result.chosen.threshold) == (0.01, 300, 1.0)
    assert result.point_estimate.threshold == 4.0


def test_the_rule_of_three_is_the_least_for_a_point_estimate_and_the_exact_bound_otherwise() -> None:
    assert calibrate(*numbered(59), 0.05).impostor == 59
    with pytest.raises(InsufficientError):
        calibrate(*numbered(58), 0.05)
    assert calibrate(*numbered(60), 0.05, point_estimate=True).impostor == 60
    with pytest.raises(InsufficientError):
        calibrate(*numbered(59), 0.05, point_estimate=True)


def test_no_fmr_outside_of_0_and_1() -> None:
    for fmr in (0.0, -0.1, 1.0, 1.5):
        for point_estimate in (True, False):
            with pytest.raises(InputError, match="target FMR"):
                calibrate(*numbered(300), fmr, point_estimate=point_estimate)


def test_the_bound_is_that_of_the_impostors_with_what_was_asked() -> None:
    d, genuine = numbered(400)
    people = Members("people", (np.arange(401), 401 + np.arange(401) % 300))
    impostors = people.at(np.arange(1, 401))
    asked = {"seed": 7, "draws": 60}
    estimate = calibrate(d, genuine, 0.05, 0.8, people, point_estimate=True, **asked)  # type: ignore[arg-type]
    assert estimate.bound == bound_at(d[1:], impostors, estimate.chosen.threshold, 0.05, 0.8, **asked)
    held = calibrate(d, genuine, 0.05, 0.8, people, **asked)  # type: ignore[arg-type]
    assert (held.chosen.threshold, held.bound) == bounded_threshold(d[1:], impostors, 0.05, 0.8, **asked)
    for point_estimate in (True, False):
        zero, one = (
            calibrate(d, genuine, 0.05, 0.8, people, point_estimate=point_estimate, seed=seed).bound for seed in (0, 1)
        )
        assert zero == calibrate(d, genuine, 0.05, 0.8, people, point_estimate=point_estimate).bound != one
