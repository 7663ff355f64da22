"""Neighborhoods of pixels: shifted views of a padded batch, in TensorFlow and as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.defenses.base import GraphBuilder

# An end for Slice that is beyond the end of every image.
_END = np.iinfo(np.int64).max


def tensorflow_window(padded: Any, size: int, row: int, column: int) -> Any:
    """Return, for each pixel, the pixel at `row` and `column` of the `size` x `size` square around it.

    Args:
        padded: (N, H + size - 1, W + size - 1, C), the padded images.
        size: the side of the square.
        row: the row in the square, from 0.
        column: the column in the square, from 0.

    Returns:
        (N, H, W, C).
    """
    # The ends are negative indices, so that the shape is not needed.
    bottom, right = (row - size + 1) or None, (column - size + 1) or None
    return padded[:, row:bottom, column:right, :]


def onnx_window(graph: GraphBuilder, padded: str, size: int, row: int, column: int) -> str:
    """Add `tensorflow_window` of a value (N, C, H, W) as a Slice node. Return the name of the result."""
    ends = [(row - size + 1) or _END, (column - size + 1) or _END]
    bounds = [graph.constant(np.array(b, np.int64)) for b in ([row, column], ends, [2, 3])]
    return graph.add("Slice", [padded, *bounds])
