"""Zoom and shift of crops, with separate amounts for each crop, in NumPy, TensorFlow and ONNX.

Random defenses share these functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import GraphBuilder


def moved(crops: NDArray[np.float32], zoom: NDArray[np.float32], shift: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zoom and shift crops. Pixels outside the original crop are black.

    Args:
        crops: (N, H, W, 3), values in [0, 1].
        zoom: (N,), the zoom factors; values above 1 enlarge the crop.
        shift: (N, 2), the shift (x, y) of the window's center, in units of half the side.

    Returns:
        (N, H, W, 3), sampled bilinearly. Pixel centers are at half-integers, as in ONNX's GridSample with
        `align_corners` 0.
    """
    n, height, width, _ = crops.shape
    out = np.empty_like(crops)
    for i in range(n):
        y = _places(height, zoom[i], shift[i, 1])
        x = _places(width, zoom[i], shift[i, 0])
        out[i] = np.einsum("ya,abc,xb->yxc", _weights(y, height), crops[i], _weights(x, width), optimize=True)
    return out


def _places(side: int, zoom: np.float32, shift: np.float32) -> NDArray[np.float32]:
    """Return the position in the crop, in pixels, that each pixel of the window samples."""
    steps = (2 * np.arange(side, dtype=np.float32) + 1) / np.float32(side) - 1
    seen = steps / zoom + shift
    return np.asarray(((seen + 1) * np.float32(side) - 1) / 2, np.float32)


def _weights(places: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the weights (side, side) of each pixel in each sample.

    The weights are tent functions. Their sum is below 1 outside the crop, so that pixels outside count as black.
    """
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(side, dtype=np.float32)))


def tensorflow_moved(crops: Any, zoom: Any, shift: Any) -> Any:
    """Compute `moved` in TensorFlow. It is differentiable with respect to the crops."""
    import tensorflow as tf

    def weights(side: Any, offset: Any) -> Any:
        length = tf.cast(side, tf.float32)
        pixel = tf.range(length)
        steps = (2 * pixel + 1) / length - 1
        places = ((steps / zoom[:, None] + offset[:, None] + 1) * length - 1) / 2
        return tf.nn.relu(1 - tf.abs(places[:, :, None] - pixel))

    shape = tf.shape(crops)
    rows = tf.einsum("nya,nabc->nybc", weights(shape[1], shift[:, 1]), crops)
    return tf.einsum("nxb,nybc->nyxc", weights(shape[2], shift[:, 0]), rows)


def onnx_moved(graph: GraphBuilder, value: str, zoom: str, shift: str) -> str:
    """Add the nodes of `moved` to an ONNX graph.

    Args:
        graph: the graph.
        value: the name of the crops (N, 3, H, W).
        zoom: the name of the zoom factors (N, 1).
        shift: the name of the shifts (N, 2), x and y.

    Returns:
        The name of the moved crops (N, 3, H, W).
    """
    shape = graph.add("Shape", [value])

    def weights(axis: int, column: int) -> str:
        """Add the weights (N, 1, side, side), for a matrix product over the last two axes."""
        side = graph.add("Gather", [shape, graph.integer(axis)], axis=0)
        length = graph.add("Cast", [side], to=1)
        one, half = (graph.constant(np.array(x, np.float32)) for x in (1, 0.5))
        index = graph.add("Range", [graph.integer(0), side, graph.integer(1)])
        pixel = graph.add("Cast", [index], to=1)
        double = graph.add("Add", [graph.add("Add", [pixel, pixel]), one])
        steps = graph.add("Sub", [graph.add("Div", [double, length]), one])
        offset = graph.add("Gather", [shift, graph.constant(np.array([column], np.int64))], axis=1)
        seen = graph.add("Add", [graph.add("Div", [steps, zoom]), offset])
        in_pixels = graph.add("Sub", [graph.add("Mul", [graph.add("Add", [seen, one]), length]), one])
        places = graph.add("Mul", [in_pixels, half])
        places = graph.add("Unsqueeze", [places, graph.constant(np.array([1, 3], np.int64))])
        distance = graph.add("Abs", [graph.add("Sub", [places, pixel])])
        return graph.add("Relu", [graph.add("Sub", [one, distance])])

    rows = graph.add("MatMul", [weights(2, 1), value])
    turned = graph.add("Transpose", [weights(3, 0)], perm=[0, 1, 3, 2])
    return graph.add("MatMul", [rows, turned])
