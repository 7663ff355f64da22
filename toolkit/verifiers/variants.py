"""One image as several variants: draws that are averaged, and squeezed forms that give an attack score.

Behind a verifier that ran on all variants of a batch at once, embeddings lie in the order variant, draw, image. The
forms in NumPy, TensorFlow and ONNX agree. The score is that of feature squeezing (Xu et al. 2018, section V), with
embeddings in place of class probabilities: what a filter changes little on a clean image, it changes much on a probe
that was optimized.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.verifiers.manifest import Metric
from toolkit.verifiers.quiet import import_tensorflow
from toolkit.verifiers.scores import distances

_TINY = np.float32(1e-12)


def fold(embeddings: NDArray[np.float32], variants: int, images: int) -> NDArray[np.float32]:
    """Average the draws of each variant: their mean direction, at their mean length.

    Args:
        embeddings: (variants * draws * images, D).
        variants: the image itself and its squeezed forms.
        images: N.

    Returns:
        (variants, N, D); of a single draw, the embeddings as they are.
    """
    each = embeddings.reshape(variants, -1, images, embeddings.shape[-1])
    if each.shape[1] == 1:
        return each[:, 0]
    lengths = np.linalg.norm(each, axis=-1, keepdims=True)
    mean = np.sum(each / np.maximum(lengths, _TINY), axis=1)
    return mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), _TINY) * lengths.mean(axis=1)


def attack_scores(metric: Metric, folded: NDArray[np.float32]) -> NDArray[np.float64]:
    """The largest distance (N,) between the first variant and any other of (variants, N, D); zero without others."""
    return np.max([np.zeros(folded.shape[1]), *(distances(metric, folded[0], other) for other in folded[1:])], axis=0)


def tensorflow_distances(metric: Metric, a: Any, b: Any) -> Any:
    """`scores.distances`, differentiable also where they are zero."""
    tf = import_tensorflow()
    if metric == "cosine":
        return 1.0 - tf.reduce_sum(tf.math.l2_normalize(a, -1) * tf.math.l2_normalize(b, -1), axis=-1)
    squared = tf.reduce_sum(tf.square(a - b), axis=-1)
    return squared if metric == "squared-euclidean" else tf.sqrt(tf.maximum(squared, 1e-12))


def tensorflow_fold(embeddings: Any, variants: int, images: Any) -> Any:
    """`fold` of a tensor."""
    tf = import_tensorflow()
    each = tf.reshape(embeddings, (variants, -1, images, embeddings.shape[-1]))

    def mean() -> Any:
        direction = tf.math.l2_normalize(tf.reduce_sum(tf.math.l2_normalize(each, -1), axis=1), -1)
        return direction * tf.reduce_mean(tf.norm(each, axis=-1, keepdims=True), axis=1)

    return tf.cond(tf.shape(each)[1] == 1, lambda: each[:, 0], mean)


def tensorflow_attack_scores(metric: Metric, folded: Any) -> Any:
    """`attack_scores` of a tensor; the gradient is that of the largest distance."""
    tf = import_tensorflow()
    if folded.shape[0] == 1:
        return tf.zeros_like(folded[0, :, 0])
    return tf.reduce_max(tensorflow_distances(metric, folded[:1], folded[1:]), axis=0)


def onnx_fold(graph: Any, embeddings: str, variants: int, draws: int, size: int) -> list[str]:
    """Add `fold` behind `embeddings` of `size` values; returns the name of each variant's (N, D)."""
    each = graph.add("Reshape", [embeddings, graph.constant(np.array([variants, draws, -1, size]))])
    folded = []
    for variant in range(variants):
        mine = graph.add("Gather", [each, graph.integer(variant)], axis=0)
        if draws == 1:
            folded.append(graph.add("Gather", [mine, graph.integer(0)], axis=0))
            continue
        lengths = _onnx_lengths(graph, mine)
        direction = _onnx_unit(graph, _onnx_sum(graph, graph.add("Div", [mine, lengths]), 0))
        length = graph.add("Div", [_onnx_sum(graph, lengths, 0), graph.constant(np.array(draws, np.float32))])
        folded.append(graph.add("Mul", [direction, length]))
    return folded


def onnx_attack_scores(graph: Any, metric: Metric, folded: list[str], output: str, *, normalize: bool) -> None:
    """Add `attack_scores` as the value `output` (N,); `normalize` where the host normalizes the embeddings."""
    if normalize or metric == "cosine":
        folded = [_onnx_unit(graph, embeddings) for embeddings in folded]
    shifts = []
    for other in folded[1:]:
        difference = graph.add("Sub", [folded[0], other])
        squared = _onnx_sum(graph, graph.add("Mul", [difference, difference]), -1)
        if metric == "cosine":  # of unit vectors: half the squared distance, and exactly zero where nothing changed
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


def _onnx_unit(graph: Any, value: str) -> str:
    return str(graph.add("Div", [value, _onnx_lengths(graph, value)]))
