"""Certified radii: the numbers that Cohen, Rosenfeld and Kolter's CERTIFY gives, and none without a majority."""

from __future__ import annotations

import pytest
from scipy import stats

from toolkit.statistics.certification import certified_radius
from toolkit.statistics.intervals import Rate


def test_the_radius_of_unanimous_votes_in_closed_form() -> None:
    # The exact bound of n of n is (1 - confidence)^(1 / n); the paper's largest radius with n = 100 000 is 3.8 sigma.
    bound = 0.001 ** (1 / 100_000)
    assert certified_radius(Rate(100_000, 100_000), 0.5, 0.999) == pytest.approx(0.5 * stats.norm.ppf(bound))
    assert certified_radius(Rate(100_000, 100_000), 1.0, 0.999) == pytest.approx(3.81, abs=0.01)


def test_the_radius_rests_on_the_exact_bound() -> None:
    bound = stats.binomtest(90, 100, alternative="greater").proportion_ci(0.99, "exact").low
    assert certified_radius(Rate(90, 100), 0.25, 0.99) == pytest.approx(0.25 * stats.norm.ppf(bound))


def test_without_a_majority_nothing_is_certified() -> None:
    assert certified_radius(Rate(50, 100), 1.0, 0.95) is None
    # More than half of the votes, of which too few are proof.
    assert certified_radius(Rate(55, 100), 1.0, 0.95) is None
    # One of one at 50 %: the bound is exactly a half, and a half is no majority.
    assert certified_radius(Rate(1, 1), 1.0, 0.5) is None
