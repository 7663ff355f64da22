"""Crops as files that services read."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def png(crop: NDArray[np.uint8]) -> bytes:
    """Encode a crop (H, W, 3), RGB, as PNG. JPEG would remove small perturbations before the service sees them."""
    _, content = cv2.imencode(".png", crop[..., ::-1])
    return bytes(content.tobytes())
