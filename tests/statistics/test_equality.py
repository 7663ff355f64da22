"""The test of equal rates, against SciPy and against every permutation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toolkit.errors import InputError
from toolkit.statistics import equality
from toolkit.statistics.equality import equal_rates
from toolkit.statistics.intervals import Rate

RATES = st.integers(1, 12).flatmap(lambda n: st.integers(0, n).map(lambda k: Rate(k, n)))


@given(RATES, RATES)
def test_two_groups_are_fishers_exact_test(one: Rate, other: Rate) -> None:
    table = [[r.successes, r.trials - r.successes] for r in (one, other)]
    assert equal_rates([one, other]) == pytest.approx(stats.fisher_exact(table).pvalue)


def by_fractions(rates: Sequence[Rate]) -> float:
    total = sum(rate.successes for rate in rates)

    def ways(table: Sequence[int]) -> int:
        return int(np.prod([comb(rate.trials, k) for rate, k in zip(rates, table, strict=True)], dtype=object))

    observed = ways([rate.successes for rate in rates])
    tables = [t for t in itertools.product(*(range(rate.trials + 1) for rate in rates)) if sum(t) == total]
    counts = [ways(table) for table in tables]
    return float(Fraction(sum(c for c in counts if c <= observed), sum(counts)))


@given(st.lists(RATES.filter(lambda rate: rate.trials <= 8), min_size=2, max_size=4))
def test_more_groups_are_the_sum_over_all_tables(rates: list[Rate]) -> None:
    assert equal_rates(rates) == pytest.approx(by_fractions(rates))


def test_tables_too_many_to_list_are_drawn_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = [Rate(2, 20), Rate(9, 22), Rate(5, 30)]
    exact = equal_rates(rates)
    monkeypatch.setattr(equality, "_MOST_TABLES", 10)
    assert equal_rates(rates) == pytest.approx(exact, abs=0.01)
    assert equal_rates(rates) == equal_rates(rates)


def test_many_groups_with_few_errors_end() -> None:
    assert equal_rates([Rate(0, 1)] * 99 + [Rate(1, 1)]) == 1
    assert equal_rates([Rate(0, 9)] * 99) == 1


def test_large_groups_end() -> None:
    many = [Rate(500 + 5 * i, 1000) for i in range(12)]
    assert 0 < equal_rates(many) <= 1
    assert equal_rates([*many, Rate(0, 1000)]) == pytest.approx(1 / 50_001)


def test_rounding_makes_no_probability_larger_than_1() -> None:
    tables = [
        (Rate(a, n), Rate(b, m)) for n in (1, 2) for m in (5, 6, 7, 8) for a in range(n + 1) for b in range(m + 1)
    ]
    assert all(0 < equal_rates(table) <= 1 for table in tables)


def test_rates_that_do_not_vary_are_no_evidence() -> None:
    assert equal_rates([Rate(0, 5), Rate(0, 90)]) == 1
    assert equal_rates([Rate(5, 5), Rate(9, 9)]) == 1


@pytest.mark.parametrize("rates", [[], [Rate(1, 2)], [Rate(1, 2), Rate(0, 0)]])
def test_fewer_than_two_groups_have_nothing_to_compare(rates: list[Rate]) -> None:
    with pytest.raises(InputError, match="two or more groups"):
        equal_rates(rates)
