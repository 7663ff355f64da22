"""Linear maps of the rows and columns of images, as matrices. Their transposes map gradients back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def apply(rows: Floats, columns: Floats, images: Floats) -> Floats:
    """Multiply the rows and the columns of images by matrices.

    Args:
        rows: (N or 1, H', H), the matrices for the vertical direction.
        columns: (N or 1, W', W), the matrices for the horizontal direction.
        images: (N, H, W, 3).

    Returns:
        (N, H', W', 3).
    """
    n, h, w, c = images.shape
    tall, wide = rows.shape[1], columns.shape[1]
    result = np.empty((n, tall, wide, c), np.float32)
    # One image stays in the processor's cache, and large products are faster than one for each row.
    for image, vertical, horizontal, into in zip(
        images, np.broadcast_to(rows, (n, tall, h)), np.broadcast_to(columns, (n, wide, w)), result, strict=True
    ):
        turned = (vertical @ image.reshape(h, w * c)).reshape(tall, w, c).swapaxes(0, 1).reshape(w, tall * c)
        into[...] = (horizontal @ turned).reshape(wide, tall, c).swapaxes(0, 1)
    return result


def linear_resize(size: int, to: int) -> Floats:
    """Return the matrix (to, size) of linear interpolation. Pixels are areas, so that the image's corners coincide."""
    at = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
    below = np.minimum(at.astype(np.intp), max(size - 2, 0))
    matrix = np.zeros((to, size), np.float32)
    matrix[np.arange(to), below] = 1 - (at - below)
    matrix[np.arange(to), np.minimum(below + 1, size - 1)] += (at - below).astype(np.float32)
    return matrix


def gaussian_blur(size: int, kernel: int) -> Floats:
    """Return the matrix (size, size) of the convolution with a Gaussian of `kernel` values, zero outside the border."""
    half = kernel // 2
    deviation = max(half, 1) / np.sqrt(3)
    offset = np.arange(size)[:, None] - np.arange(size)
    weight = np.where(np.abs(offset) <= half, np.exp(-(offset**2) / (2 * deviation**2)), 0)
    total = np.sum(np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * deviation**2)))
    return (weight / total).astype(np.float32)


def cosines(side: int) -> Floats:
    """Return the orthonormal basis (side, side) of the DCT-II, with low frequencies first."""
    angle = np.pi * np.arange(side)[:, None] * (np.arange(side) + 0.5) / side
    return (np.cos(angle) * np.sqrt(np.where(np.arange(side) == 0, 1, 2) / side)[:, None]).astype(np.float32)
