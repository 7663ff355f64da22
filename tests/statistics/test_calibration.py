"""Thresholds for a stated FMR: a known quantile, an interval that covers, and a refusal where pairs are too few."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toolkit.errors import InsufficientError
from toolkit.statistics.calibration import calibrate


def scores(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Genuine distances around 1, impostors normal around 2."""
    d = np.concatenate([rng.normal(1, 0.1, 50), rng.normal(2, 0.2, n)])
    return d, np.arange(50 + n) < 50


def test_the_interval_covers_the_true_quantile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = stats.norm.ppf(0.01, 2, 0.2)
    results = [calibrate(*scores(rng, 1500), fmr=0.01) for _ in range(300)]
    covered = np.mean([low <= truth <= high for low, high in (r.threshold_interval for r in results)])
    assert covered >= 0.93
    assert np.mean([r.point.threshold for r in results]) == pytest.approx(truth, abs=0.02)


def test_the_fmr_on_the_pairs_is_held() -> None:
    result = calibrate(*scores(np.random.default_rng(1), 1000), fmr=0.01)
    assert (result.point.fmr.successes, result.point.fmr.trials) == (10, 1000)
    low, high = result.threshold_interval
    assert low < result.point.threshold < high


def test_too_few_impostors_are_refused_with_what_they_support() -> None:
    with pytest.raises(InsufficientError, match=r"at least 3000 impostor pairs.*there are 300.*support an FMR"):
        calibrate(*scores(np.random.default_rng(2), 300), fmr=1e-3)
