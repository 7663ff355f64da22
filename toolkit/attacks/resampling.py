"""Linear maps of images along their two sides, as matrices: what is a matrix has a transpose for the way back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def apply(rows: Floats, columns: Floats, images: Floats) -> Floats:
    """Images (N, H, W, 3) times matrices (N or 1, H', H) from the left and (N or 1, W', W) along the other side."""
    n, h, w, c = images.shape
    tall = np.matmul(rows, images.reshape(n, h, w * c)).reshape(n, -1, w, c)
    return np.matmul(columns[:, None], tall)


def linear_resize(size: int, to: int) -> Floats:
    """The matrix (to, size) of linear interpolation, with pixels as areas: corners of the image stay corners."""
    at = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
    below = np.minimum(at.astype(np.intp), max(size - 2, 0))
    matrix = np.zeros((to, size), np.float32)
    matrix[np.arange(to), below] = 1 - (at - below)
    matrix[np.arange(to), np.minimum(below + 1, size - 1)] += (at - below).astype(np.float32)
    return matrix


def gaussian_blur(size: int, kernel: int) -> Floats:
    """The matrix (size, size) of convolution with a Gaussian of `kernel` values, zero beyond the border."""
    half = kernel // 2
    deviation = max(half, 1) / np.sqrt(3)
    offset = np.arange(size)[:, None] - np.arange(size)
    weight = np.where(np.abs(offset) <= half, np.exp(-(offset**2) / (2 * deviation**2)), 0)
    total = np.sum(np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * deviation**2)))
    return (weight / total).astype(np.float32)
