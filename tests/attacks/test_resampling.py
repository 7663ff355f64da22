"""Linear maps of rows and columns, beside NumPy's, OpenCV's and SciPy's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import fft, ndimage

from toolkit.attacks.resampling import apply, cosines, gaussian_blur, linear_resize

IMAGES = np.random.default_rng(0).random((3, 12, 10, 3), np.float32)


@pytest.mark.parametrize("matrices", [1, 3])
def test_rows_and_columns_are_multiplied_image_by_image(matrices: int) -> None:
    rng = np.random.default_rng(1)
    rows, columns = (rng.random((matrices, to, size), np.float32) for to, size in ((7, 12), (5, 10)))
    every = [np.broadcast_to(m, (3, *m.shape[1:])) for m in (rows, columns)]
    found = apply(rows, columns, IMAGES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.einsum("nah,nhwc,nbw->nabc", every[0], IMAGES, every[1]), rtol=1e-5)
    for i in range(3):
        alone = apply(every[0][i : i + 1], every[1][i : i + 1], IMAGES[i : i + 1])
        np.testing.assert_array_equal(alone[0], found[i], err_msg="a result does not depend on its batch")


@pytest.mark.parametrize(("height", "width"), [(20, 17), (12, 10), (30, 25)])
def test_linear_interpolation_is_opencvs(height: int, width: int) -> None:
    found = apply(linear_resize(12, height)[None], linear_resize(10, width)[None], IMAGES)
    expected = [cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) for image in IMAGES]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_blur_is_scipys_convolution_with_zeros_around() -> None:
    matrix = gaussian_blur(12, 5)
    kernel = matrix[5, 3:8]
    assert kernel.sum() == pytest.approx(1)
    expected = ndimage.convolve1d(IMAGES, kernel, axis=1, mode="constant")
    np.testing.assert_allclose(apply(matrix[None], np.eye(10, dtype=np.float32)[None], IMAGES), expected, atol=1e-6)


def test_cosines_are_scipys_orthonormal_transform() -> None:
    basis = cosines(12)
    np.testing.assert_allclose(basis @ basis.T, np.eye(12), atol=1e-5)
    np.testing.assert_allclose(basis @ IMAGES[0, :, 0], fft.dct(IMAGES[0, :, 0], axis=0, norm="ortho"), atol=1e-5)
