"""Paired comparison of censored values, against SciPy and against answers that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toolkit.errors import InputError
from toolkit.statistics.censored import Shift, median_difference, sign_test

LIMIT = 2.0
VALUES = st.lists(
    st.tuples(st.floats(0, 4).map(lambda v: round(v, 2)), st.floats(0, 4).map(lambda v: round(v, 2))),
    min_size=1,
    max_size=40,
)


def censored(values: np.ndarray) -> np.ndarray:
    return np.where(values > LIMIT, np.inf, values)


@given(VALUES)
def test_the_sign_test_is_scipys_binomial_test(values: list[tuple[float, float]]) -> None:
    first, second = np.array(values).T
    signs = sign_test(first, second)
    assert (signs.larger, signs.smaller) == ((first > second).sum(), (first < second).sum())
    if signs.larger + signs.smaller:
        expected = stats.binomtest(signs.larger, signs.larger + signs.smaller).pvalue
        assert signs.p_value == pytest.approx(expected)


@given(VALUES)
def test_censoring_never_turns_an_order_round(values: list[tuple[float, float]]) -> None:
    """It only makes ties, where both values are beyond the limit."""
    first, second = np.array(values).T
    whole, cut = sign_test(first, second), sign_test(censored(first), censored(second))
    both = (first > LIMIT) & (second > LIMIT)
    assert cut.larger == whole.larger - ((first > second) & both).sum()
    assert cut.smaller == whole.smaller - ((first < second) & both).sum()


def test_two_values_beyond_the_limit_are_a_tie() -> None:
    infinite = np.full(50, np.inf)
    assert sign_test(infinite, infinite).p_value == 1
    assert median_difference(infinite, infinite, LIMIT) == Shift(0, None, -np.inf, np.inf)


@given(VALUES)
def test_without_censoring_the_interval_is_that_of_scipys_quantile_test(values: list[tuple[float, float]]) -> None:
    first, second = np.array(values).T
    shift = median_difference(first, second, LIMIT)
    expected = stats.quantile_test(first - second, q=0, p=0.5).confidence_interval(0.95)
    low, high = (np.nan_to_num(end, nan=sign * np.inf) for end, sign in ((expected.low, -1), (expected.high, 1)))
    assert (shift.low, shift.high) == pytest.approx((low, high))
    assert shift.median == pytest.approx(np.median(first - second))


@given(VALUES)
def test_whatever_lies_beyond_the_limit_the_bounds_hold(values: list[tuple[float, float]]) -> None:
    """The interval of the censored values contains that of the values behind them."""
    first, second = np.array(values).T
    known = (first <= LIMIT) | (second <= LIMIT)
    shift = median_difference(censored(first), censored(second), LIMIT)
    assert shift.pairs == known.sum()
    if known.any():
        whole = median_difference(first[known], second[known], LIMIT)
        assert shift.low <= whole.low + 1e-12
        assert shift.high >= whole.high - 1e-12
        assert shift.median is not None
        assert whole.median is not None
        assert shift.median <= whole.median + 1e-12


def test_half_of_the_pairs_beyond_reach_bound_the_median_from_below_alone() -> None:
    first, second = np.array([np.inf] * 8 + [1.5] * 2), np.ones(10)
    shift = median_difference(first, second, LIMIT)
    assert (shift.median, shift.low, shift.high) == (1.0, 0.5, np.inf)


def test_second_values_beyond_reach_bound_the_difference_from_above() -> None:
    """Nine of ten are more than the limit of 2: their first value of 1 is more than 1 smaller."""
    first, second = np.ones(10), np.array([np.inf] * 9 + [0.5])
    shift = median_difference(first, second, LIMIT)
    assert (shift.pairs, shift.median, shift.low, shift.high) == (10, -np.inf, -np.inf, -1.0)


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0, 2.0]), ([float("nan")], [1.0]), ([[1.0]], [[1.0]])])
def test_what_is_no_list_of_pairs_is_refused(first: list[float], second: list[float]) -> None:
    for function in (sign_test, lambda a, b: median_difference(a, b, LIMIT)):
        with pytest.raises(InputError, match="two lists of the same length"):
            function(np.array(first), np.array(second))
