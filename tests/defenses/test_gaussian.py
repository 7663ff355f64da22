"""The Gaussian filter against SciPy's, and its parameter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from toolkit.defenses.gaussian import GaussianBlur


@pytest.mark.parametrize(("sigma", "size"), [(0.3, 3), (1.0, 7), (2.0, 13), (5.0, 31)])
def test_the_kernel_reaches_three_deviations(sigma: float, size: int) -> None:
    assert GaussianBlur(sigma).size == size


def test_it_is_scipys_filter_with_mirrored_borders() -> None:
    crop = np.random.default_rng(1).random((19, 23, 3), np.float32)
    expected = ndimage.gaussian_filter(crop, (1.5, 1.5, 0), mode="mirror", radius=GaussianBlur(1.5).size // 2)
    np.testing.assert_allclose(GaussianBlur(1.5).numpy(crop[None])[0], expected, atol=1e-6)


def test_bad_deviations_are_refused() -> None:
    for sigma in (0.0, 0.29, 5.1, float("nan")):
        with pytest.raises(ValueError, match="sigma"):
            GaussianBlur(sigma)
