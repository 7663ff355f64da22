from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.statistics.curves import asr_curve, success_at_budget
from toolkit.statistics.intervals import Rate

NORMS = np.array([5.0, np.nan, 0.5, 1.0, 7.0, 0.2])
SUCCESS = np.array([True, False, True, True, True, False])


def test_failures_keep_the_curve_below_one() -> None:
    norms, share = asr_curve(np.array([3.0, 1.0, 3.0]), 6)
    np.testing.assert_array_equal(norms, [1, 3, 3])
    np.testing.assert_allclose(share, [1 / 6, 3 / 6, 3 / 6])


def test_budget_is_inclusive_and_counts_failed_attacks_in_the_trials() -> None:
    assert success_at_budget(NORMS, SUCCESS, np.inf) == Rate(4, 6)
    assert success_at_budget(NORMS, SUCCESS, 5.0) == Rate(3, 6)
    assert success_at_budget(NORMS, SUCCESS, 1.0) == Rate(2, 6)
    # 0.2 was tried and failed: a small norm alone is no success.
    assert success_at_budget(NORMS, SUCCESS, 0.3) == Rate(0, 6)


def test_curve_and_budget_say_the_same() -> None:
    norms, share = asr_curve(NORMS[SUCCESS], len(NORMS))
    for norm, height in zip(norms, share, strict=True):
        assert success_at_budget(NORMS, SUCCESS, float(norm)).value == pytest.approx(height)


def test_nothing_eligible_or_nothing_broken() -> None:
    for eligible in (0, 10):
        norms, share = asr_curve(np.array([]), eligible)
        assert len(norms) == len(share) == 0
    assert success_at_budget(np.array([]), np.array([], bool), 1.0).value is None


def test_unusable_values_are_refused() -> None:
    for norms in ([np.nan], [-1.0], [np.inf]):
        with pytest.raises(InputError, match="norms"):
            asr_curve(np.array(norms), 5)
    with pytest.raises(InputError, match="only 1 eligible"):
        asr_curve(np.array([1.0, 2.0]), 1)
    with pytest.raises(InputError, match="every success"):
        success_at_budget(np.array([np.nan]), np.array([True]), 1.0)
    with pytest.raises(InputError, match="budget"):
        success_at_budget(NORMS, SUCCESS, float("nan"))
    with pytest.raises(InputError, match="one length"):
        success_at_budget(NORMS, SUCCESS[:-1], 1.0)


def test_a_success_without_any_change_counts_at_every_budget() -> None:
    norms, share = asr_curve(np.array([2.0, 0.0]), 2)
    np.testing.assert_array_equal(norms, [0, 2])
    np.testing.assert_array_equal(share, [0.5, 1])
    assert success_at_budget(np.array([2.0, 0.0]), np.array([True, True]), 0.0) == Rate(1, 2)


def test_one_pair_that_is_broken_is_all_of_one() -> None:
    assert asr_curve(np.array([3.0]), 1)[1].tolist() == [1.0]


def test_whole_numbers_are_norms_too() -> None:
    norms, share = asr_curve([3, 1], 4)  # type: ignore[arg-type]
    assert norms.dtype == share.dtype == np.float64
    assert success_at_budget([3, 1], [True, True], 2) == Rate(1, 2)  # type: ignore[arg-type]


def test_a_norm_of_a_success_is_finite_and_not_negative() -> None:
    for norm in (-1.0, np.inf):
        with pytest.raises(InputError):
            success_at_budget(np.array([norm, 1.0]), np.array([True, True]), 5.0)
        # What failed may have any.
        assert success_at_budget(np.array([norm, 1.0]), np.array([False, True]), 5.0) == Rate(1, 2)


def test_tables_and_negative_budgets_are_refused() -> None:
    with pytest.raises(InputError):
        asr_curve(np.ones((2, 2)), 9)
    with pytest.raises(InputError):
        success_at_budget(np.ones((2, 2)), np.ones((2, 2), bool), 1.0)
    with pytest.raises(InputError):
        success_at_budget(NORMS, SUCCESS.astype(int), 1.0)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        success_at_budget(NORMS, SUCCESS, -0.1)
