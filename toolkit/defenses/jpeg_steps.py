"""The operations that JPEG is made of, in TensorFlow and as ONNX nodes, so that its steps are written once."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import GraphBuilder
from toolkit.defenses.gradients import straight_through


class Steps(Protocol):
    """Operations on images: a value is a tensor (N, H, W, C) or the name of one (N, C, H, W)."""

    def multiply(self, value: Any, factor: float | NDArray[np.float32]) -> Any:
        """Product with constants."""
        ...

    def divide(self, value: Any, divisor: float) -> Any:
        """Quotient, which a product with the inverse would miss by a rounding."""
        ...

    def shift(self, value: Any, offset: float) -> Any:
        """Sum with a constant."""
        ...

    def add(self, a: Any, b: Any) -> Any:
        """Sum."""
        ...

    def clip(self, value: Any, low: float, high: float) -> Any:
        """Clip."""
        ...

    def floor(self, value: Any) -> Any:
        """Round down, straight-through."""
        ...

    def round(self, value: Any) -> Any:
        """Round, ties to even, straight-through."""
        ...

    def colors(self, matrix: NDArray[np.float32], value: Any, bias: NDArray[np.float32], like: Any) -> Any:
        """`matrix` (out, in) times the channels of each pixel, plus `bias`; the result has the shape of `like`."""
        ...

    def convolve(self, value: Any, kernel: NDArray[np.float32], bias: NDArray[np.float32], stride: int = 1) -> Any:
        """Convolve with a kernel (out, in, height, width), without padding."""
        ...

    def fold(self, value: Any, block: int) -> Any:
        """Gather squares of `block` x `block` pixels into channels (row, column, channel)."""
        ...

    def unfold(self, value: Any, block: int) -> Any:
        """Spread channels (row, column, channel) over squares of `block` x `block` pixels."""
        ...

    def lines(self, squares: Any) -> Any:
        """Folded squares of 8 x 8 pixels with all that is no row or column within them around: (., 8, 8, .)."""
        ...

    def squares(self, lines: Any, like: Any) -> Any:
        """The inverse of `lines`, for folded squares that are `like` these."""
        ...

    def transform(self, matrix: NDArray[np.float32], lines: Any, *, vertical: bool) -> Any:
        """`matrix` (8, 8) times each column of 8 values if `vertical`, else times each row."""
        ...

    def channels(self, value: Any, first: int, end: int) -> Any:
        """Some of the channels."""
        ...

    def pad(self, value: Any, rows: int, columns: int) -> Any:
        """Repeat the last row and column until the sides are multiples."""
        ...

    def frame(self, value: Any) -> Any:
        """Repeat the border once on each side."""
        ...

    def crop(self, value: Any, like: Any, divisor: int, *, columns: bool) -> Any:
        """Keep the height, and if told the width, of `like` over `divisor`, rounded up."""
        ...


class TensorFlowSteps:
    """On tensors (N, H, W, C)."""

    def __init__(self) -> None:
        import tensorflow as tf

        self._tf = tf

    def multiply(self, value: Any, factor: float | NDArray[np.float32]) -> Any:
        """Product."""
        return value * factor

    def divide(self, value: Any, divisor: float) -> Any:
        """`divide_no_nan`, because a compiled `/` becomes a product."""
        return self._tf.math.divide_no_nan(value, divisor)

    def shift(self, value: Any, offset: float) -> Any:
        """Sum."""
        return value + offset

    def add(self, a: Any, b: Any) -> Any:
        """Sum."""
        return a + b

    def clip(self, value: Any, low: float, high: float) -> Any:
        """Its gradient is zero outside."""
        return self._tf.clip_by_value(value, low, high)

    def floor(self, value: Any) -> Any:
        """`tf.floor`."""
        return straight_through(self._tf.floor, value)

    def round(self, value: Any) -> Any:
        """`tf.round`."""
        return straight_through(self._tf.round, value)

    def colors(self, matrix: NDArray[np.float32], value: Any, bias: NDArray[np.float32], like: Any) -> Any:  # noqa: ARG002
        """`conv2d`."""
        return self.convolve(value, matrix[..., None, None], bias)

    def convolve(self, value: Any, kernel: NDArray[np.float32], bias: NDArray[np.float32], stride: int = 1) -> Any:
        """`conv2d`."""
        return self._tf.nn.conv2d(value, kernel.transpose(2, 3, 1, 0), stride, "VALID") + bias

    def fold(self, value: Any, block: int) -> Any:
        """`space_to_depth`."""
        return self._tf.nn.space_to_depth(value, block)

    def unfold(self, value: Any, block: int) -> Any:
        """`depth_to_space`."""
        return self._tf.nn.depth_to_space(value, block)

    def lines(self, squares: Any) -> Any:
        """`reshape`."""
        return self._tf.reshape(squares, [-1, 8, 8, squares.shape[3] // 64])

    def squares(self, lines: Any, like: Any) -> Any:
        """`reshape`."""
        return self._tf.ensure_shape(self._tf.reshape(lines, self._tf.shape(like)), like.shape)

    def transform(self, matrix: NDArray[np.float32], lines: Any, *, vertical: bool) -> Any:
        """One `matmul` over whole squares: zeros are cheaper than transpositions."""
        planes = lines.shape[3]
        factors = (matrix, np.eye(8)) if vertical else (np.eye(8), matrix)
        whole = np.kron(np.kron(*factors), np.eye(planes)).astype(np.float32)
        product = self._tf.matmul(self._tf.reshape(lines, [-1, 64 * planes]), whole.T)
        return self._tf.reshape(product, [-1, 8, 8, planes])

    def channels(self, value: Any, first: int, end: int) -> Any:
        """A slice."""
        return value[..., first:end]

    def pad(self, value: Any, rows: int, columns: int) -> Any:
        """TensorFlow has no such padding, and a gather would have a slow gradient."""
        tf = self._tf
        shape = tf.shape(value)
        below = tf.tile(value[:, -1:], [1, -shape[1] % rows, 1, 1])
        value = tf.concat([value, below], axis=1)
        beside = tf.tile(value[:, :, -1:], [1, 1, -shape[2] % columns, 1])
        return tf.concat([value, beside], axis=2)

    def frame(self, value: Any) -> Any:
        """A symmetric pad by one pixel repeats the border."""
        return self._tf.pad(value, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")

    def crop(self, value: Any, like: Any, divisor: int, *, columns: bool) -> Any:
        """A slice to a size that may be known only at run time."""
        shape = (self._tf.shape(like) + divisor - 1) // divisor
        return value[:, : shape[1], : shape[2]] if columns else value[:, : shape[1]]


class OnnxSteps:
    """As nodes on (N, C, H, W)."""

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph

    def _constant(self, value: Any) -> str:
        return self._graph.constant(np.array(value, np.float32))

    def _integers(self, *values: int) -> str:
        return self._graph.constant(np.array(values, np.int64))

    def multiply(self, value: str, factor: float | NDArray[np.float32]) -> str:
        """Mul."""
        return self._graph.add("Mul", [value, self._constant(factor)])

    def divide(self, value: str, divisor: float) -> str:
        """Div."""
        return self._graph.add("Div", [value, self._constant(divisor)])

    def shift(self, value: str, offset: float) -> str:
        """Add."""
        return self._graph.add("Add", [value, self._constant(offset)])

    def add(self, a: str, b: str) -> str:
        """Add."""
        return self._graph.add("Add", [a, b])

    def clip(self, value: str, low: float, high: float) -> str:
        """Clip."""
        return self._graph.add("Clip", [value, self._constant(low), self._constant(high)])

    def floor(self, value: str) -> str:
        """Floor."""
        return self._graph.add("Floor", [value])

    def round(self, value: str) -> str:
        """Round."""
        return self._graph.add("Round", [value])

    def colors(self, matrix: NDArray[np.float32], value: str, bias: NDArray[np.float32], like: str) -> str:
        """MatMul, a tenth of the time of Conv on so few channels."""
        flat = self._graph.add("Reshape", [value, self._integers(0, 0, -1)])
        product = self._graph.add("MatMul", [self._constant(matrix), flat])
        total = self._graph.add("Add", [product, self._constant(bias[:, None])])
        return self._graph.add("Reshape", [total, self._graph.add("Shape", [like])])

    def convolve(self, value: str, kernel: NDArray[np.float32], bias: NDArray[np.float32], stride: int = 1) -> str:
        """Conv."""
        inputs = [value, self._graph.constant(kernel), self._graph.constant(bias)]
        return self._graph.add("Conv", inputs, strides=[stride, stride])

    def fold(self, value: str, block: int) -> str:
        """SpaceToDepth."""
        return self._graph.add("SpaceToDepth", [value], blocksize=block)

    def unfold(self, value: str, block: int) -> str:
        """DepthToSpace."""
        return self._graph.add("DepthToSpace", [value], blocksize=block, mode="DCR")

    def lines(self, squares: str) -> str:
        """Reshape."""
        return self._graph.add("Reshape", [squares, self._integers(0, 8, 8, -1)])

    def squares(self, lines: str, like: str) -> str:
        """Reshape to what Shape says."""
        return self._graph.add("Reshape", [lines, self._graph.add("Shape", [like])])

    def transform(self, matrix: NDArray[np.float32], lines: str, *, vertical: bool) -> str:
        """MatMul, for columns with all behind them as one axis."""
        if not vertical:
            return self._graph.add("MatMul", [self._constant(matrix), lines])
        flat = self._graph.add("Reshape", [lines, self._integers(0, 8, -1)])
        return self.lines(self._graph.add("MatMul", [self._constant(matrix), flat]))

    def channels(self, value: str, first: int, end: int) -> str:
        """Slice."""
        return self._graph.add("Slice", [value, *(self._integers(i) for i in (first, end, 1))])

    def pad(self, value: str, rows: int, columns: int) -> str:
        """Pad by what Shape says is missing."""
        sides = self._graph.add("Shape", [value])
        # The remainder has the sign of the multiple, so that this is what is missing.
        negative = self._graph.add("Sub", [self._integers(0), sides])
        missing = self._graph.add("Mod", [negative, self._integers(1, 1, rows, columns)])
        pads = self._graph.add("Concat", [self._integers(0, 0, 0, 0), missing], axis=0)
        return self._graph.add("Pad", [value, pads], mode="edge")

    def frame(self, value: str) -> str:
        """Pad."""
        return self._graph.add("Pad", [value, self._integers(0, 0, 1, 1, 0, 0, 1, 1)], mode="edge")

    def crop(self, value: str, like: str, divisor: int, *, columns: bool) -> str:
        """Slice to what Shape says."""
        shape = self._graph.add("Shape", [like])
        rounded = self._graph.add("Add", [shape, self._integers(divisor - 1)])
        shape = self._graph.add("Div", [rounded, self._integers(divisor)])
        axes = (2, 3) if columns else (2,)
        ends = self._graph.add("Gather", [shape, self._integers(*axes)], axis=0)
        starts = self._integers(*(0 for _ in axes))
        return self._graph.add("Slice", [value, starts, ends, self._integers(*axes)])
