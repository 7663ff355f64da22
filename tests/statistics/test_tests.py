from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toolkit.errors import InputError
from toolkit.statistics.tests import holm, mcnemar


def test_six_to_nothing_is_the_least_that_reaches_five_percent() -> None:
    assert mcnemar(6, 0) == pytest.approx(2 / 64)
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(6, 0) < 0.05 < mcnemar(5, 0)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (7, 3), (3, 7), (12, 30), (4, 4)])
def test_mcnemar_is_the_sign_test(first: int, second: int) -> None:
    assert mcnemar(first, second) == pytest.approx(stats.binomtest(first, first + second).pvalue)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_no_discordant_pair_is_no_evidence() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1


@pytest.mark.parametrize(("n", "published"), [(50, 0.38), (100, 0.94)])
def test_published_power(n: int, published: float) -> None:
    """10 % against 0 %: only one side can be discordant, so power is P(at least 6 of n)."""
    power = sum(stats.binom.pmf(k, n, 0.1) for k in range(n + 1) if mcnemar(k, 0) < 0.05)
    assert power == pytest.approx(published, abs=0.006)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)


def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni() -> None:
    raw = np.random.default_rng(3).random(20) ** 3
    adjusted = holm(raw)
    assert np.all(adjusted >= raw)
    assert np.all(adjusted <= np.minimum(raw * 20, 1) + 1e-15)
    assert np.all(np.diff(adjusted[np.argsort(raw)]) >= 0)
    shuffled = np.random.default_rng(4).permutation(20)
    np.testing.assert_array_equal(holm(raw[shuffled]), adjusted[shuffled])


def test_unusable_values_are_refused() -> None:
    with pytest.raises(InputError, match="negative"):
        mcnemar(-1, 2)
    for values in ([0.1, float("nan")], [1.1], [-0.1]):
        with pytest.raises(InputError, match="from 0 to 1"):
            holm(values)


def test_holm_takes_certainties_and_whole_numbers() -> None:
    assert holm([0.0, 0.5, 1.0]).tolist() == [0.0, 1.0, 1.0]
    assert holm([0, 1]).dtype == np.float64


def test_a_table_is_no_list_of_p_values() -> None:
    with pytest.raises(InputError):
        holm(np.full((2, 2), 0.5))
