"""Distances between embeddings, decisions, and P(same)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.verifiers.manifest import Decision, Metric

Float = NDArray[np.float64]


def normalized(embeddings: NDArray[np.floating[Any]]) -> Float:
    """Scale embeddings (N, D) to unit L2 norm, in float64. Rows of zeros stay zero."""
    e = np.asarray(embeddings, np.float64)
    return e / np.maximum(np.linalg.norm(e, axis=-1, keepdims=True), 1e-12)


def distances(metric: Metric, a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> Float:
    """Return the distances (N,) between corresponding rows of two sets of embeddings (N, D), in float64.

    The cosine distance is 1 - cosine similarity, from 0 to 2.

    Raises:
        ValueError: the metric is that of a service, which compares crops itself.
    """
    if metric == "service":
        raise ValueError("a service gives no embeddings; ask it to compare the crops")
    if metric == "cosine":
        return 1.0 - np.sum(normalized(a) * normalized(b), axis=-1)
    squared = np.sum((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2, axis=-1)
    return squared if metric == "squared-euclidean" else np.sqrt(squared)


def is_same(decision: Decision, d: Float) -> NDArray[np.bool_]:
    """Return whether each distance (N,) means "same", that is, whether it is strictly below the threshold."""
    return np.asarray(d < decision.threshold)


def p_same(decision: Decision, d: Float) -> Float:
    """Return P(same) of each distance (N,) (paper, section 4).

    P(same) is piecewise linear: 1 at distance 0, 0.5 at the threshold, and 0 at the maximum.
    """
    t, largest = decision.threshold, decision.maximum
    return np.where(d < t, 1.0 - 0.5 * d / t, 0.5 - 0.5 * (d - t) / (largest - t))
