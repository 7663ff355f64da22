"""Optimality has known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InputError
from toolkit.statistics.optimality import envelope, optimality

INF = np.inf
NORMS = st.lists(st.one_of(st.floats(0, 100), st.just(INF)), min_size=3, max_size=3)


def test_the_envelope_is_the_best_of_each_pair() -> None:
    assert envelope([np.array([1.0, INF, 3.0]), np.array([2.0, INF, 1.0])]).tolist() == [1.0, INF, 1.0]


def test_an_attack_that_is_the_envelope_is_optimal() -> None:
    best = np.array([1.0, 2.0, 3.0, INF])
    assert optimality(best, best) == 1.0


def test_the_measure_is_the_share_of_the_area() -> None:
    """Up to 3 the envelope takes 2 + 1 + 0; an attack that needs 1.5 times as much takes 1.5."""
    best = np.array([1.0, 2.0, 3.0])
    assert optimality(1.5 * best, best) == pytest.approx(0.5)
    # One failure costs all that the envelope takes with its pair.
    assert optimality(np.array([INF, 2.0, 3.0]), best) == pytest.approx(1 / 3)
    # What only needs more than the envelope's last norm takes nothing.
    assert optimality(np.array([9.0, 9.0, 9.0]), best) == 0.0


def test_a_curve_without_area_counts_successes() -> None:
    best = np.array([2.0, 2.0, INF])
    assert optimality(np.array([2.0, 3.0, INF]), best) == 0.5
    assert optimality(np.array([5.0]), np.array([5.0])) == 1.0


def test_nothing_broken_is_nothing_known() -> None:
    failed = np.array([INF, INF])
    assert optimality(failed, failed) is None
    assert optimality(failed, failed, bound=1.0) is None
    assert optimality(np.array([9.0]), np.array([9.0]), bound=1.0) is None


def test_an_attack_in_a_ball_is_measured_there() -> None:
    """It may use all of its ball."""
    best = np.array([0.1, 0.5, 1.0, 2.0])
    assert optimality(np.array([1.0, 1.0, 1.0, INF]), best, bound=1.0) == 1.0
    assert optimality(np.array([1.0 + 1e-6, INF, 1.0, 2.0]), best, bound=1.0) == pytest.approx(2 / 3)


@given(NORMS, NORMS, st.one_of(st.none(), st.floats(0.1, 100)))
def test_it_is_a_share(one: list[float], other: list[float], bound: float | None) -> None:
    norms = np.array(one), np.array(other)
    for own in norms:
        value = optimality(own, envelope(norms), bound)
        assert value is None or 0 <= value <= 1


@pytest.mark.parametrize("norms", [[0.5], [np.nan], [-1.0], [1.0, 2.0]])
def test_norms_that_cannot_be_are_refused(norms: list[float]) -> None:
    with pytest.raises(InputError, match="smaller than those of the envelope"):
        optimality(np.array(norms), np.array([1.0]))


@given(st.lists(st.one_of(st.floats(0.01, 100), st.just(np.inf)), min_size=1, max_size=40))
def test_the_envelope_itself_is_at_one_exactly(norms: list[float]) -> None:
    found = optimality(np.array(norms), np.array(norms))
    assert found == (1.0 if np.isfinite(norms).any() else None)


def test_one_norm_of_all_pairs_and_norms_at_the_bound_are_counted() -> None:
    """Without an area between curves, an attack is measured by the pairs that it breaks at this norm."""
    assert optimality(np.array([2.0, 2.0, 3.0, 2.0]), np.full(4, 2.0)) == 0.75
    # Tiny norms that differ are not one norm.
    small = np.array([1e-6, 2e-6, 3e-6])
    assert optimality(small, small) == 1
    assert optimality(2 * small, small) == pytest.approx(1 / 3)
    edge = 0.5 * (1 + 1e-5)
    assert optimality(np.array([edge, edge, 1.0]), np.array([edge, edge, 0.4]), bound=0.5) == pytest.approx(2 / 3)
    with pytest.raises(InputError):
        optimality(np.ones((2, 2)), np.ones((2, 2)))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_norms_that_are_a_rounding_error_apart_are_one_norm(scale: float) -> None:
    """Their curve has no area but that of rounding: what breaks all pairs there is optimal, however many there are."""
    best = scale * np.array([1.0] + [1 - 1e-6] * 99)
    assert optimality(np.full(100, scale), best) == 1.0
    assert optimality(np.full(1, scale * (1 + 1e-5)), np.full(1, scale)) == 1.0
    # A tenth of a percent is no rounding error.
    apart = scale * np.array([1.0] + [0.999] * 99)
    assert optimality(np.full(100, scale), apart) == 0.0
