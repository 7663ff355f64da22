"""How far apart distances lie: known values, and intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.statistics import separation
from toolkit.statistics.separation import closeness, d_primes, paired_difference
from toolkit.statistics.verification import d_prime


def test_d_prime_has_a_sign_and_agrees_with_the_unsigned_one() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.normal(1, 0.2, 50), rng.normal(2, 0.3, 60)
    labels = np.arange(110) < 50
    expected = d_prime(np.concatenate([near, far]), labels)
    assert d_primes(near, far) == pytest.approx(expected)
    assert d_primes(far, near) == pytest.approx(-expected)
    many = d_primes(np.stack([near, near + 1]), np.stack([far, far]))
    np.testing.assert_allclose(many, [expected, d_primes(near + 1, far)])


def test_distances_without_spread_are_infinitely_apart_or_not_at_all() -> None:
    one, two = np.full(3, 1.0), np.full(3, 2.0)
    assert (d_primes(one, two), d_primes(two, one), d_primes(one, one)) == (math.inf, -math.inf, 0)
    assert closeness(one, two) == pytest.approx(math.log(2))


def test_the_interval_of_a_paired_difference_covers_the_truth() -> None:
    covered, genuine = 0, np.arange(120) < 60
    for seed in range(60):
        rng = np.random.default_rng(seed)
        face = rng.normal(0, 0.1, 120)
        one = np.where(genuine, 1, 2) + face + rng.normal(0, 0.02, 120)
        other = np.where(genuine, 1.1, 2) + face + rng.normal(0, 0.02, 120)
        low, high = paired_difference(closeness, one, other, genuine, rng)
        covered += low <= math.log(1.1) <= high
        assert low > 0, "pairs that rise and fall together tell a small difference"
    assert covered >= 52


def test_each_draw_of_distances_is_measured_apart() -> None:
    near, far = np.array([[1.0, 2, 3], [2, 2, 2]]), np.array([[4.0, 5, 6], [5, 5, 5]])
    np.testing.assert_allclose(d_primes(near, far), [3, 0])
    np.testing.assert_allclose(d_primes(near[[0, 0]], np.stack([far[0], far[0] + 1])), [3, 4])
    np.testing.assert_allclose(closeness(near, far), [math.log(5 / 2), math.log(5 / 2)])
    np.testing.assert_allclose(closeness(near, far * [[1], [2]]), [math.log(5 / 2), math.log(10 / 2)])


def test_an_interval_has_its_confidence() -> None:
    rng = np.random.default_rng(3)
    genuine = np.arange(90) < 30
    one, other = rng.normal(np.where(genuine, 1, 2), 0.2), rng.normal(np.where(genuine, 1.1, 2), 0.2)
    widths = {c: np.diff(paired_difference(d_primes, one, other, genuine, np.random.default_rng(0), c))[0]
              for c in (0.68, 0.95)}  # fmt: skip
    # Of a normal distribution: 1.96 standard errors over 0.994.
    assert widths[0.95] / widths[0.68] == pytest.approx(1.96 / 0.994, rel=0.1)


def test_as_many_pairs_of_a_kind_are_drawn_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of 25 genuine distances has a fifth of their deviation as its standard error, whatever the impostors."""
    monkeypatch.setattr(separation, "_DRAWS", 20_000)
    rng, genuine = np.random.default_rng(5), np.arange(425) < 25
    one = rng.normal(5, 1, 425)
    low, high = paired_difference(lambda g, i: g.mean(axis=-1) + 0 * i[..., 0], one, np.full(425, 5.0), genuine, rng)
    assert (high - low) / 2 == pytest.approx(1.96 * one[genuine].std() / 5, rel=0.03)
