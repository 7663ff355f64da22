"""Sampling: choose a few pairs that represent a whole list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toolkit.faces.pairs import PairSet


def sample_pairs(pairs: PairSet, count: int) -> PairSet:
    """Return at most `count` pairs of both kinds, evenly spaced over the list."""
    genuine = np.array([pair.genuine for pair in pairs.pairs])
    return replace(pairs, pairs=tuple(pairs.pairs[row] for row in spread_rows(genuine, count)))


def spread_rows(genuine: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    """Return the sorted indices of at most `count` rows, half of each kind as far as there are enough.

    The rows of each kind are evenly spaced over the list.

    Args:
        genuine: (n,) bool, the kind of each row.
        count: the largest number of rows.
    """
    kinds: Sequence[NDArray[np.intp]] = sorted((np.flatnonzero(genuine), np.flatnonzero(~genuine)), key=len)
    few = min(len(kinds[0]), count // 2)
    chosen = [
        kind[np.unique(np.linspace(0, len(kind) - 1, n).round().astype(np.intp))]
        for kind, n in zip(kinds, (few, min(len(kinds[1]), count - few)), strict=True)
        if n
    ]
    return np.sort(np.concatenate(chosen))
