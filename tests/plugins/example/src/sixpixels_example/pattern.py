"""The pattern that the attack adds; a module of its own, so that the attack has a helper to import."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def wave(height: int, period: int, phase: float) -> NDArray[np.float32]:
    """Return one value from -1 to 1 for each row of an image."""
    return np.sin(2 * np.pi * (np.arange(height) / period + phase)).astype(np.float32)
