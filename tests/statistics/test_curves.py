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
