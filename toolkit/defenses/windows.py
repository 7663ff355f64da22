"""Neighborhoods: a padded batch seen from every offset of a square, in TensorFlow and as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.defenses.base import GraphBuilder

# An end for Slice that is behind every image.
_END = np.iinfo(np.int64).max


def tensorflow_window(padded: Any, size: int, row: int, column: int) -> Any:
    """What stands `row` down and `column` right in the `size` x `size` square at each pixel; (N, H, W, C)."""
    # Ends count from the back, so that no shape is needed.
    bottom, right = (row - size + 1) or None, (column - size + 1) or None
    return padded[:, row:bottom, column:right, :]


def onnx_window(graph: GraphBuilder, padded: str, size: int, row: int, column: int) -> str:
    """The same as Slice, of (N, C, H, W)."""
    ends = [(row - size + 1) or _END, (column - size + 1) or _END]
    bounds = [graph.constant(np.array(b, np.int64)) for b in ([row, column], ends, [2, 3])]
    return graph.add("Slice", [padded, *bounds])
