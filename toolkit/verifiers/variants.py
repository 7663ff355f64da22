"""Variants of an image: draws whose embeddings are averaged or vote, and squeezed forms that give an attack score.

The verifier runs on all variants of a batch at once. The embeddings are then in the order variant, draw, image. The
implementations in NumPy, TensorFlow and ONNX agree. The score is that of feature squeezing (Xu et al. 2018,
section V), with embeddings instead of class probabilities: a filter changes the embedding of a clean image little, but
the embedding of an optimized probe much.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.quiet import import_tensorflow
from toolkit.verifiers.manifest import Metric
from toolkit.verifiers.scores import distances

_TINY = np.float32(1e-12)
_INT64 = 7


def fold(embeddings: NDArray[np.float32], variants: int, images: int) -> NDArray[np.float32]:
    """Average the draws of each variant: the mean direction, scaled to the mean length.

    Args:
        embeddings: (variants * draws * images, D).
        variants: the number of variants: the image itself and its squeezed forms.
        images: the number of images N.

    Returns:
        (variants, N, D). The embeddings of a single draw are unchanged.
    """
    each = embeddings.reshape(variants, -1, images, embeddings.shape[-1])
    if each.shape[1] == 1:
        return each[:, 0]
    lengths = np.linalg.norm(each, axis=-1, keepdims=True)
    mean = np.sum(each / np.maximum(lengths, _TINY), axis=1)
    return mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), _TINY) * lengths.mean(axis=1)


def drawn_apart(embeddings: NDArray[np.float32], images: int) -> NDArray[np.float32]:
    """Put the embeddings of all draws of an image into one row: (draws * N, D) to (N, draws * D)."""
    size = embeddings.shape[-1]
    return np.ascontiguousarray(embeddings.reshape(-1, images, size).swapaxes(0, 1)).reshape(images, -1)


def centers(embeddings: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return one embedding (N, D) for each row of `drawn_apart`: that of `fold`. Single embeddings are unchanged."""
    if embeddings.shape[1] == size:
        return embeddings
    each = embeddings.reshape(len(embeddings), -1, size)
    return fold(np.ascontiguousarray(each.swapaxes(0, 1)).reshape(-1, size), 1, len(embeddings))[0]


def voted_distances(
    metric: Metric, size: int, embeddings: NDArray[np.float32], references: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the distances of a verifier whose draws vote.

    The distance of a pair is the upper median of the distances of the probe's draws to the reference. It is below a
    threshold exactly if more than half of the draws are. Draws of the reference are averaged first (`centers`).

    Args:
        metric: the metric.
        size: the length D of an embedding.
        embeddings: (N, k * D), k draws of the probes.
        references: (N, m * D), m draws of the references; m may be 1.

    Returns:
        (N,).
    """
    each = draw_distances(metric, size, embeddings, references)
    return np.asarray(np.sort(each, axis=1)[:, each.shape[1] // 2])


def draw_distances(
    metric: Metric, size: int, embeddings: NDArray[np.float32], references: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the distances (N, k) of all draws of the probes to the references. See `voted_distances`."""
    each = embeddings.reshape(len(embeddings), embeddings.shape[1] // size, size)
    return distances(metric, each, centers(references, size)[:, None])


def attack_scores(metric: Metric, folded: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the largest distance (N,) between the first and any other variant; zero if there is no other.

    Args:
        metric: the metric of the distance.
        folded: (variants, N, D), the embeddings. See `fold`.
    """
    return np.max([np.zeros(folded.shape[1]), *(distances(metric, folded[0], other) for other in folded[1:])], axis=0)


def tensorflow_distances(metric: Metric, a: Any, b: Any) -> Any:
    """Compute `scores.distances` in TensorFlow. The gradient is finite even if a distance is zero."""
    tf = import_tensorflow()
    if metric == "cosine":
        return 1.0 - tf.reduce_sum(tf.math.l2_normalize(a, -1) * tf.math.l2_normalize(b, -1), axis=-1)
    squared = tf.reduce_sum(tf.square(a - b), axis=-1)
    return squared if metric == "squared-euclidean" else tf.sqrt(tf.maximum(squared, 1e-12))


def tensorflow_fold(embeddings: Any, variants: int, images: Any) -> Any:
    """Compute `fold` in TensorFlow."""
    tf = import_tensorflow()
    each = tf.reshape(embeddings, (variants, -1, images, embeddings.shape[-1]))

    def mean() -> Any:
        direction = tf.math.l2_normalize(tf.reduce_sum(tf.math.l2_normalize(each, -1), axis=1), -1)
        return direction * tf.reduce_mean(tf.norm(each, axis=-1, keepdims=True), axis=1)

    return tf.cond(tf.shape(each)[1] == 1, lambda: each[:, 0], mean)


def tensorflow_attack_scores(metric: Metric, folded: Any) -> Any:
    """Compute `attack_scores` in TensorFlow. The gradient is that of the largest distance."""
    tf = import_tensorflow()
    if folded.shape[0] == 1:
        return tf.zeros_like(folded[0, :, 0])
    return tf.reduce_max(tensorflow_distances(metric, folded[:1], folded[1:]), axis=0)


def onnx_fold(graph: Any, embeddings: str, variants: int, draws: int, size: int) -> list[str]:
    """Add the nodes of `fold` to an ONNX graph.

    Args:
        graph: the `GraphBuilder`.
        embeddings: the name of the embeddings (variants * draws * N, size).
        variants: the number of variants.
        draws: the number of draws.
        size: the length of an embedding.

    Returns:
        For each variant, the name of its value (N, size).
    """
    each = graph.add("Reshape", [embeddings, graph.constant(np.array([variants, draws, -1, size]))])
    folded = []
    for variant in range(variants):
        mine = graph.add("Gather", [each, graph.integer(variant)], axis=0)
        if draws == 1:
            folded.append(graph.add("Gather", [mine, graph.integer(0)], axis=0))
            continue
        lengths = _onnx_lengths(graph, mine)
        direction = onnx_unit(graph, _onnx_sum(graph, graph.add("Div", [mine, lengths]), 0))
        length = graph.add("Div", [_onnx_sum(graph, lengths, 0), graph.constant(np.array(draws, np.float32))])
        folded.append(graph.add("Mul", [direction, length]))
    return folded


def onnx_votes(graph: Any, embeddings: str, reference: str, threshold: str, metric: Metric, *, unit: bool) -> str:
    """Add nodes that count the draws that accept: those whose distance to the reference is below the threshold.

    Args:
        graph: the `GraphBuilder`.
        embeddings: the name of the draws (N, draws, D).
        reference: the name of the references, (N, D) or (1, D).
        threshold: the name of the threshold, a scalar.
        metric: the metric.
        unit: whether the host L2-normalizes embeddings.

    Returns:
        The name of the votes (N,), int64.
    """
    each, other = embeddings, graph.add("Unsqueeze", [reference, graph.constant(np.array([1], np.int64))])
    if unit or metric == "cosine":
        each, other = onnx_unit(graph, each), onnx_unit(graph, other)
    difference = graph.add("Sub", [each, other])
    d = _onnx_sum(graph, graph.add("Mul", [difference, difference]), -1)
    if metric == "cosine":
        d = graph.add("Mul", [d, graph.constant(np.array(0.5, np.float32))])
    elif metric == "euclidean":
        d = graph.add("Sqrt", [d])
    return _onnx_sum(graph, graph.add("Cast", [graph.add("Less", [d, threshold])], to=_INT64), 1)


def onnx_attack_scores(graph: Any, metric: Metric, folded: list[str], output: str, *, normalize: bool) -> None:
    """Add the nodes of `attack_scores` to an ONNX graph.

    Args:
        graph: the `GraphBuilder`.
        metric: the metric of the distance.
        folded: for each variant, the name of its value (N, D). See `onnx_fold`.
        output: the name of the new value (N,).
        normalize: whether the host L2-normalizes the graph's embeddings.
    """
    if normalize or metric == "cosine":
        folded = [onnx_unit(graph, embeddings) for embeddings in folded]
    shifts = []
    for other in folded[1:]:
        difference = graph.add("Sub", [folded[0], other])
        squared = _onnx_sum(graph, graph.add("Mul", [difference, difference]), -1)
        if metric == "cosine":  # half the squared distance of unit vectors is exactly zero for equal vectors
            shifts.append(graph.add("Mul", [squared, graph.constant(np.array(0.5, np.float32))]))
        else:
            shifts.append(squared if metric == "squared-euclidean" else graph.add("Sqrt", [squared]))
    graph.add("Max", shifts, output)


def _onnx_sum(graph: Any, value: str, axis: int, *, keepdims: bool = False) -> str:
    axes = graph.constant(np.array([axis], np.int64))
    return str(graph.add("ReduceSum", [value, axes], keepdims=int(keepdims)))


def _onnx_lengths(graph: Any, value: str) -> str:
    squared = _onnx_sum(graph, graph.add("Mul", [value, value]), -1, keepdims=True)
    return str(graph.add("Max", [graph.add("Sqrt", [squared]), graph.constant(np.array(_TINY))]))


def onnx_unit(graph: Any, value: str) -> str:
    """Add nodes that scale the last axis of a value to length 1. Return the name of the result."""
    return str(graph.add("Div", [value, _onnx_lengths(graph, value)]))
