"""Where a random profile's draws come from: the operating system in deployment, a seed in tests and audits."""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
from numpy.typing import NDArray

# The optional input of a hardened graph with random defenses: int64, one number for each image, or one for all.
ENTROPY = "sixpixels_entropy"
# Entropies are below this.
LARGEST_ENTROPY = 2**62


def os_entropy(count: int) -> NDArray[np.int64]:
    """Unpredictable entropies (count,)."""
    return np.array([secrets.randbelow(LARGEST_ENTROPY) for _ in range(count)], np.int64)


def seeded_entropy(crops: NDArray[np.float32], seed: int, draw: int = 0) -> NDArray[np.int64]:
    """Entropies (N,) that depend on each crop's own pixels, `seed` and `draw`, and so not on the batch."""
    salt = f"{seed}/{draw}/".encode()
    digests = [hashlib.sha256(salt + np.ascontiguousarray(crop).tobytes()).digest() for crop in crops]
    return np.array([int.from_bytes(d[:8], "little") % LARGEST_ENTROPY for d in digests], np.int64)
