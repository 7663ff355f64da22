"""Bilinear interpolation at any positions, as a sparse matrix. Its transpose maps gradients back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float32]


def bilinear(x: NDArray[np.float64], y: NDArray[np.float64], height: int, width: int) -> Any:
    """Return the sparse matrix (P, height * width) that reads an image at P positions.

    Args:
        x: (P,), the horizontal positions in pixels; the center of the first pixel is 0. Outside the outermost centers,
            and where a position is NaN, the image is black.
        y: (P,), the vertical positions.
        height: the height of the image.
        width: its width.
    """
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    place = np.flatnonzero(inside)
    left = np.minimum(x[place].astype(np.intp), max(width - 2, 0))
    top = np.minimum(y[place].astype(np.intp), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = x[place] - left, y[place] - top
    corners = (
        (top, left, (1 - down) * (1 - across)),
        (top, right, (1 - down) * across),
        (bottom, left, down * (1 - across)),
        (bottom, right, down * across),
    )
    weights = np.concatenate([weight for *_, weight in corners]).astype(np.float32)
    columns = np.concatenate([row * width + column for row, column, _ in corners])
    return csr_array((weights, (np.tile(place, 4), columns)), shape=(len(x), height * width))


def warp(matrix: Any, image: Floats, height: int, width: int) -> Floats:
    """Multiply the pixels of an image (H, W, 3) by a matrix (height * width, H * W); returns (height, width, 3)."""
    return np.asarray(matrix @ image.reshape(-1, 3), np.float32).reshape(height, width, 3)
