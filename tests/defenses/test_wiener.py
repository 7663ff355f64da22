"""The Wiener filter is SciPy's away from the borders."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from toolkit.defenses.mean import Mean
from toolkit.defenses.wiener import Wiener


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("noise", [0.001, 0.05])
def test_it_is_scipys_filter_inside(size: int, noise: float) -> None:
    crop = np.random.default_rng(0).random((20, 24, 3), np.float32)
    expected = np.stack([signal.wiener(crop[..., c].astype(float), size, noise) for c in range(3)], axis=-1)
    inside = (slice(size, -size), slice(size, -size))
    np.testing.assert_allclose(Wiener(size, noise).numpy(crop[None])[0][inside], expected[inside], atol=1e-5)


def test_it_smooths_what_is_flatter_than_the_noise_and_keeps_what_is_not() -> None:
    rng = np.random.default_rng(1)
    flat = (0.5 + rng.normal(0, 0.005, (1, 20, 20, 3))).astype(np.float32)
    np.testing.assert_allclose(Wiener(3, 0.01).numpy(flat), Mean(3).numpy(flat), atol=1e-6)
    busy = np.round(rng.random((1, 20, 20, 3), np.float32))
    assert np.abs(Wiener(3, 1e-5).numpy(busy) - busy).max() < 1e-3


def test_a_constant_image_is_left_alone() -> None:
    crops = np.full((1, 9, 11, 3), 0.7, np.float32)
    np.testing.assert_allclose(Wiener().numpy(crops), crops, atol=1e-6)


@pytest.mark.parametrize(
    ("parameter", "value"), [("size", 4), ("size", 1), ("size", 33), ("noise", 0.0), ("noise", 2.0)]
)
def test_bad_parameters_are_refused(parameter: str, value: float) -> None:
    with pytest.raises(ValueError, match=parameter):
        Wiener(**{parameter: value})
