"""Entropy for random profiles: from the operating system in deployment, from a seed in tests and audits."""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
from numpy.typing import NDArray

# Name of the optional input of a hardened graph with random defenses: int64, one number per image or one for all.
ENTROPY = "sixpixels_entropy"
# Entropies are non-negative and below this.
LARGEST_ENTROPY = 2**62


def os_entropy(count: int) -> NDArray[np.int64]:
    """Return unpredictable entropies (count,) from the operating system."""
    return np.array([secrets.randbelow(LARGEST_ENTROPY) for _ in range(count)], np.int64)


def seeded_entropy(crops: NDArray[np.float32], seed: int, draw: int = 0) -> NDArray[np.int64]:
    """Return entropies (N,) that depend only on each crop's pixels, `seed` and `draw`, not on the batch."""
    salt = f"{seed}/{draw}/".encode()
    digests = [hashlib.sha256(salt + np.ascontiguousarray(crop).tobytes()).digest() for crop in crops]
    return np.array([int.from_bytes(d[:8], "little") % LARGEST_ENTROPY for d in digests], np.int64)
