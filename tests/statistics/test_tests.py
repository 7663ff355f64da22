from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toolkit.errors import InputError
from toolkit.statistics.tests import holm, holm_of_known, mcnemar, mcnemar_power, mcnemar_worse


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


@pytest.mark.parametrize(("worse", "better"), [(1, 0), (0, 1), (7, 3), (3, 7), (12, 30), (4, 4), (100, 0)])
def test_the_one_sided_test_is_the_one_sided_sign_test(worse: int, better: int) -> None:
    expected = stats.binomtest(worse, worse + better, alternative="greater").pvalue
    assert mcnemar_worse(worse, better) == pytest.approx(expected)


def test_the_one_sided_test_by_hand() -> None:
    assert mcnemar_worse(5, 0) == pytest.approx(1 / 32)
    # 4 or 5 of 5: (5 + 1) / 32.
    assert mcnemar_worse(4, 1) == pytest.approx(6 / 32)
    assert mcnemar_worse(0, 5) == mcnemar_worse(0, 0) == 1, "better is no regression"
    for counts in ((-1, 2), (2, -1)):
        with pytest.raises(InputError, match="negative"):
            mcnemar_worse(*counts)


@pytest.mark.parametrize("level", [0.05, 0.05 / 4, 0.05 / 8, 1 / 32, 0.5])
@pytest.mark.parametrize(("pairs", "share"), [(0, 0.1), (3, 0.9), (15, 0.1), (50, 0.1), (100, 0.1), (100, 0.02)])
def test_power_is_the_sum_over_the_counts_that_the_test_finds(pairs: int, share: float, level: float) -> None:
    found = (stats.binom.pmf(k, pairs, share) for k in range(pairs + 1) if mcnemar_worse(k, 0) <= level)
    assert mcnemar_power(pairs, share, level) == pytest.approx(sum(found), abs=1e-12)


def test_power_is_how_often_the_test_finds_simulated_changes() -> None:
    worse = np.random.default_rng(0).binomial(60, 0.1, 20_000)
    p_values = np.array([mcnemar_worse(k, 0) for k in range(61)])
    assert mcnemar_power(60, 0.1, 0.05) == pytest.approx(np.mean(p_values[worse] <= 0.05), abs=0.012)


def test_power_grows_with_pairs_and_with_the_change() -> None:
    assert mcnemar_power(5, 1.0, 1 / 32) == 1
    assert mcnemar_power(4, 1.0, 1 / 32) == 0, "four pairs never reach it"
    by_pairs = [mcnemar_power(pairs, 0.1, 0.0125) for pairs in range(0, 200, 10)]
    assert by_pairs == sorted(by_pairs)
    # Fifteen pairs, of which nine newly fell: this was no regression, and no word was said.
    assert mcnemar_power(15, 0.1, 0.05 / 8) < 0.01


def test_tests_that_were_not_made_do_not_count_in_the_correction() -> None:
    p_values = [0.03, None, 0.01, 0.2, None]
    assert holm_of_known(p_values) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.2), None]
    assert holm_of_known([None, None]) == [None, None]
