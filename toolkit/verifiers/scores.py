"""From embeddings to distances, decisions and P(same)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.verifiers.manifest import Decision, Metric

Float = NDArray[np.float64]


def normalized(embeddings: NDArray[np.float32]) -> Float:
    """Embeddings (N, D) scaled to unit L2 norm, in float64; a zero row stays zero."""
    e = np.asarray(embeddings, np.float64)
    return e / np.maximum(np.linalg.norm(e, axis=-1, keepdims=True), 1e-12)


def distances(metric: Metric, a: NDArray[np.float32], b: NDArray[np.float32]) -> Float:
    """Row-by-row distances (N,) of two sets of embeddings (N, D), in float64.

    Cosine distance is 1 - cosine similarity, from 0 to 2.
    """
    if metric == "cosine":
        return 1.0 - np.sum(normalized(a) * normalized(b), axis=-1)
    squared = np.sum((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2, axis=-1)
    return squared if metric == "squared-euclidean" else np.sqrt(squared)


def is_same(decision: Decision, d: Float) -> NDArray[np.bool_]:
    """Whether each distance (N,) means "same": strictly below the threshold."""
    return np.asarray(d < decision.threshold)


def p_same(decision: Decision, d: Float) -> Float:
    """P(same) of each distance (N,), from 1 at 0 over 0.5 at the threshold to 0 at the maximum (paper, section 4)."""
    t, largest = decision.threshold, decision.maximum
    return np.where(d < t, 1.0 - 0.5 * d / t, 0.5 - 0.5 * (d - t) / (largest - t))
