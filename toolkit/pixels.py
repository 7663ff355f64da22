"""Array types of images, and the conversion between floats and the 8-bit values that a deployed verifier receives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Images (N, H, W, 3), RGB, in [0, 1].
Images = NDArray[np.float32]
# One boolean for each of N images.
Bools = NDArray[np.bool_]
# One number for each of N images.
Float = NDArray[np.float64]


def to_8bit(images: Images) -> NDArray[np.uint8]:
    """Convert images in [0, 1] to 8 bits: round each value to the nearest of 256 levels."""
    levels = images * np.float32(255)
    np.rint(levels, out=levels)
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def to_unit(images: NDArray[np.uint8]) -> Images:
    """Convert 8-bit images to float32 in [0, 1]."""
    return np.divide(images, np.float32(255), dtype=np.float32)
