"""Chambolle's iterations lower the total variation, and solve the problem they are for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.defenses.total_variation import TotalVariation


def total_variation(crops: np.ndarray) -> float:
    down = np.diff(crops, axis=1, append=crops[:, -1:])
    right = np.diff(crops, axis=2, append=crops[:, :, -1:])
    return float(np.sqrt(down**2 + right**2).sum())


@settings(max_examples=15)
@given(weight=st.floats(0.01, 1.0), seed=st.integers(0, 1000))
def test_the_total_variation_falls_with_each_iteration(weight: float, seed: int) -> None:
    crops = np.random.default_rng(seed).random((1, 12, 14, 3), np.float32)
    steps = [total_variation(TotalVariation(weight, n).numpy(crops)) for n in (1, 3, 10)]
    assert total_variation(crops) > steps[0] > steps[1] > steps[2]


def test_a_weight_near_zero_changes_nothing() -> None:
    crops = np.random.default_rng(0).random((2, 12, 14, 3), np.float32)
    np.testing.assert_allclose(TotalVariation(1e-6).numpy(crops), crops, atol=1e-5)


def test_a_square_of_known_solution() -> None:
    # In one dimension a step of height 1 between halves of n pixels loses weight / n on each side.
    crops = np.zeros((1, 4, 8, 3), np.float32)
    crops[:, :, 4:] = 1
    filtered = TotalVariation(0.4, 100).numpy(crops)
    np.testing.assert_allclose(filtered[:, :, :4], 0.1, atol=0.01)
    np.testing.assert_allclose(filtered[:, :, 4:], 0.9, atol=0.01)


def test_the_mean_is_kept() -> None:
    crops = (0.3 + 0.4 * np.random.default_rng(1).random((1, 15, 13, 3))).astype(np.float32)
    filtered = TotalVariation(0.2).numpy(crops)
    np.testing.assert_allclose(filtered.mean(axis=(1, 2)), crops.mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.parametrize(
    ("parameter", "value"), [("weight", 0.0), ("weight", 11.0), ("iterations", 0), ("iterations", 101)]
)
def test_bad_parameters_are_refused(parameter: str, value: float) -> None:
    with pytest.raises(ValueError, match=parameter):
        TotalVariation(**{parameter: value})
