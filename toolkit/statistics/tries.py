"""Repeated presentations: how often one of k tries succeeds, if every try draws anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb

from toolkit.errors import InputError
from toolkit.statistics.intervals import wilson


@dataclass(frozen=True)
class HitRate:
    """The share of pairs on which at least one of `tries` presentations succeeds, with its 95 % interval."""

    tries: int
    value: float
    low: float
    high: float


def hit_rate(hits: NDArray[np.int64], presented: int, tries: int) -> HitRate | None:
    """Estimate hit@k without bias, from more presentations than k (Chen et al. 2021, arXiv:2107.03374, equation 1).

    For a pair with c hits in m presentations, 1 - C(m - c, k) / C(m, k) is the share of all choices of k presentations
    that have a hit. The interval is Wilson's of the mean of these shares, which is too wide rather than too narrow.

    Args:
        hits: (n,), the hits of each pair, from 0 to `presented`.
        presented: the number m of presentations of each pair.
        tries: the number k.

    Returns:
        The estimate; None without pairs.

    Raises:
        InputError: there are more tries than presentations.
    """
    if not 1 <= tries <= presented:
        raise InputError(f"{tries} tries cannot be estimated from {presented} presentations; give 1 to {presented}")
    if not len(hits):
        return None
    shares = 1 - comb(presented - hits, tries) / comb(presented, tries)
    return HitRate(tries, float(shares.mean()), *wilson(float(shares.sum()), len(shares)))
