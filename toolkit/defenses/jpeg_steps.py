"""The basic operations of JPEG in TensorFlow and as ONNX nodes, so that `jpeg` describes its steps only once."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import GraphBuilder
from toolkit.defenses.gradients import straight_through


class Steps(Protocol):
    """Operations on images. A value is a TensorFlow tensor (N, H, W, C) or the name of an ONNX value (N, C, H, W)."""

    def multiply(self, value: Any, factor: float | NDArray[np.float32]) -> Any:
        """Multiply by constants."""
        ...

    def divide(self, value: Any, divisor: float) -> Any:
        """Divide by a constant. Multiplication by the inverse would have another rounding error."""
        ...

    def shift(self, value: Any, offset: float) -> Any:
        """Add a constant."""
        ...

    def add(self, a: Any, b: Any) -> Any:
        """Add two values."""
        ...

    def clip(self, value: Any, low: float, high: float) -> Any:
        """Clip to [low, high]."""
        ...

    def floor(self, value: Any) -> Any:
        """Round down. The gradient is that of the identity."""
        ...

    def round(self, value: Any) -> Any:
        """Round with ties to even. The gradient is that of the identity."""
        ...

    def colors(self, matrix: NDArray[np.float32], value: Any, bias: NDArray[np.float32], like: Any) -> Any:
        """Multiply the channels of each pixel by `matrix` (out, in) and add `bias`. The result has `like`'s shape."""
        ...

    def convolve(self, value: Any, kernel: NDArray[np.float32], bias: NDArray[np.float32], stride: int = 1) -> Any:
        """Convolve with a kernel (out, in, height, width) and add `bias` (out,), without padding."""
        ...

    def fold(self, value: Any, block: int) -> Any:
        """Move squares of `block` x `block` pixels into channels (row, column, channel)."""
        ...

    def unfold(self, value: Any, block: int) -> Any:
        """Move channels (row, column, channel) back to squares of `block` x `block` pixels."""
        ...

    def lines(self, squares: Any) -> Any:
        """Reshape folded squares of 8 x 8 pixels to (., 8, 8, .), with the row and column in the middle axes."""
        ...

    def squares(self, lines: Any, like: Any) -> Any:
        """Invert `lines`. The result has the shape of `like`."""
        ...

    def transform(self, matrix: NDArray[np.float32], lines: Any, *, vertical: bool) -> Any:
        """Multiply each column of 8 values (if `vertical`) or each row by `matrix` (8, 8)."""
        ...

    def channels(self, value: Any, first: int, end: int) -> Any:
        """Return the channels from `first` to `end` (exclusive)."""
        ...

    def pad(self, value: Any, rows: int, columns: int) -> Any:
        """Repeat the last row and column until the height is a multiple of `rows` and the width of `columns`."""
        ...

    def frame(self, value: Any) -> Any:
        """Add one pixel on each side by repeating the border."""
        ...

    def crop(self, value: Any, like: Any, divisor: int, *, columns: bool) -> Any:
        """Crop to the height, and with `columns` also the width, of `like` divided by `divisor`, rounded up."""
        ...


class TensorFlowSteps:
    """`Steps` on tensors (N, H, W, C)."""

    def __init__(self) -> None:
        import tensorflow as tf

        self._tf = tf

    def multiply(self, value: Any, factor: float | NDArray[np.float32]) -> Any:
        """Multiply."""
        return value * factor

    def divide(self, value: Any, divisor: float) -> Any:
        """Use `divide_no_nan`, because a compiled `/` becomes a multiplication."""
        return self._tf.math.divide_no_nan(value, divisor)

    def shift(self, value: Any, offset: float) -> Any:
        """Add a constant."""
        return value + offset

    def add(self, a: Any, b: Any) -> Any:
        """Add two values."""
        return a + b

    def clip(self, value: Any, low: float, high: float) -> Any:
        """Clip. The gradient is zero outside [low, high]."""
        return self._tf.clip_by_value(value, low, high)

    def floor(self, value: Any) -> Any:
        """Use `tf.floor`."""
        return straight_through(self._tf.floor, value)

    def round(self, value: Any) -> Any:
        """Use `tf.round`."""
        return straight_through(self._tf.round, value)

    def colors(self, matrix: NDArray[np.float32], value: Any, bias: NDArray[np.float32], like: Any) -> Any:  # noqa: ARG002
        """Use `conv2d`."""
        return self.convolve(value, matrix[..., None, None], bias)

    def convolve(self, value: Any, kernel: NDArray[np.float32], bias: NDArray[np.float32], stride: int = 1) -> Any:
        """Use `conv2d`."""
        return self._tf.nn.conv2d(value, kernel.transpose(2, 3, 1, 0), stride, "VALID") + bias

    def fold(self, value: Any, block: int) -> Any:
        """Use `space_to_depth`."""
        return self._tf.nn.space_to_depth(value, block)

    def unfold(self, value: Any, block: int) -> Any:
        """Use `depth_to_space`."""
        return self._tf.nn.depth_to_space(value, block)

    def lines(self, squares: Any) -> Any:
        """Use `reshape`."""
        return self._tf.reshape(squares, [-1, 8, 8, squares.shape[3] // 64])

    def squares(self, lines: Any, like: Any) -> Any:
        """Use `reshape`."""
        return self._tf.ensure_shape(self._tf.reshape(lines, self._tf.shape(like)), like.shape)

    def transform(self, matrix: NDArray[np.float32], lines: Any, *, vertical: bool) -> Any:
        """Use one `matmul` with a sparse matrix over whole squares, which is faster than transposing."""
        planes = lines.shape[3]
        factors = (matrix, np.eye(8)) if vertical else (np.eye(8), matrix)
        whole = np.kron(np.kron(*factors), np.eye(planes)).astype(np.float32)
        product = self._tf.matmul(self._tf.reshape(lines, [-1, 64 * planes]), whole.T)
        return self._tf.reshape(product, [-1, 8, 8, planes])

    def channels(self, value: Any, first: int, end: int) -> Any:
        """Slice the channels."""
        return value[..., first:end]

    def pad(self, value: Any, rows: int, columns: int) -> Any:
        """Use `tile` and `concat`, because TensorFlow has no such padding, and `gather` has a slow gradient."""
        tf = self._tf
        shape = tf.shape(value)
        below = tf.tile(value[:, -1:], [1, -shape[1] % rows, 1, 1])
        value = tf.concat([value, below], axis=1)
        beside = tf.tile(value[:, :, -1:], [1, 1, -shape[2] % columns, 1])
        return tf.concat([value, beside], axis=2)

    def frame(self, value: Any) -> Any:
        """Use a symmetric pad by one pixel, which repeats the border."""
        return self._tf.pad(value, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")

    def crop(self, value: Any, like: Any, divisor: int, *, columns: bool) -> Any:
        """Slice to a size that may be known only at run time."""
        shape = (self._tf.shape(like) + divisor - 1) // divisor
        return value[:, : shape[1], : shape[2]] if columns else value[:, : shape[1]]


class OnnxSteps:
    """`Steps` as ONNX nodes on values (N, C, H, W)."""

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph

    def _constant(self, value: Any) -> str:
        return self._graph.constant(np.array(value, np.float32))

    def _integers(self, *values: int) -> str:
        return self._graph.constant(np.array(values, np.int64))

    def multiply(self, value: str, factor: float | NDArray[np.float32]) -> str:
        """Add a Mul node."""
        return self._graph.add("Mul", [value, self._constant(factor)])

    def divide(self, value: str, divisor: float) -> str:
        """Add a Div node."""
        return self._graph.add("Div", [value, self._constant(divisor)])

    def shift(self, value: str, offset: float) -> str:
        """Add an Add node."""
        return self._graph.add("Add", [value, self._constant(offset)])

    def add(self, a: str, b: str) -> str:
        """Add an Add node."""
        return self._graph.add("Add", [a, b])

    def clip(self, value: str, low: float, high: float) -> str:
        """Add a Clip node."""
        return self._graph.add("Clip", [value, self._constant(low), self._constant(high)])

    def floor(self, value: str) -> str:
        """Add a Floor node."""
        return self._graph.add("Floor", [value])

    def round(self, value: str) -> str:
        """Add a Round node."""
        return self._graph.add("Round", [value])

    def colors(self, matrix: NDArray[np.float32], value: str, bias: NDArray[np.float32], like: str) -> str:
        """Use MatMul, which takes a tenth of the time of Conv on few channels."""
        flat = self._graph.add("Reshape", [value, self._integers(0, 0, -1)])
        product = self._graph.add("MatMul", [self._constant(matrix), flat])
        total = self._graph.add("Add", [product, self._constant(bias[:, None])])
        return self._graph.add("Reshape", [total, self._graph.add("Shape", [like])])

    def convolve(self, value: str, kernel: NDArray[np.float32], bias: NDArray[np.float32], stride: int = 1) -> str:
        """Add a Conv node."""
        inputs = [value, self._graph.constant(kernel), self._graph.constant(bias)]
        return self._graph.add("Conv", inputs, strides=[stride, stride])

    def fold(self, value: str, block: int) -> str:
        """Add a SpaceToDepth node."""
        return self._graph.add("SpaceToDepth", [value], blocksize=block)

    def unfold(self, value: str, block: int) -> str:
        """Add a DepthToSpace node."""
        return self._graph.add("DepthToSpace", [value], blocksize=block, mode="DCR")

    def lines(self, squares: str) -> str:
        """Add a Reshape node."""
        return self._graph.add("Reshape", [squares, self._integers(0, 8, 8, -1)])

    def squares(self, lines: str, like: str) -> str:
        """Reshape to the shape of `like`."""
        return self._graph.add("Reshape", [lines, self._graph.add("Shape", [like])])

    def transform(self, matrix: NDArray[np.float32], lines: str, *, vertical: bool) -> str:
        """Use MatMul. For columns, flatten all axes after them into one."""
        if not vertical:
            return self._graph.add("MatMul", [self._constant(matrix), lines])
        flat = self._graph.add("Reshape", [lines, self._integers(0, 8, -1)])
        return self.lines(self._graph.add("MatMul", [self._constant(matrix), flat]))

    def channels(self, value: str, first: int, end: int) -> str:
        """Add a Slice node."""
        return self._graph.add("Slice", [value, *(self._integers(i) for i in (first, end, 1))])

    def pad(self, value: str, rows: int, columns: int) -> str:
        """Compute the missing rows and columns from Shape, and use Pad."""
        sides = self._graph.add("Shape", [value])
        # Mod gives a non-negative remainder here, so that -side mod multiple is the number of missing pixels.
        negative = self._graph.add("Sub", [self._integers(0), sides])
        missing = self._graph.add("Mod", [negative, self._integers(1, 1, rows, columns)])
        pads = self._graph.add("Concat", [self._integers(0, 0, 0, 0), missing], axis=0)
        return self._graph.add("Pad", [value, pads], mode="edge")

    def frame(self, value: str) -> str:
        """Add a Pad node."""
        return self._graph.add("Pad", [value, self._integers(0, 0, 1, 1, 0, 0, 1, 1)], mode="edge")

    def crop(self, value: str, like: str, divisor: int, *, columns: bool) -> str:
        """Compute the size from Shape, and use Slice."""
        shape = self._graph.add("Shape", [like])
        rounded = self._graph.add("Add", [shape, self._integers(divisor - 1)])
        shape = self._graph.add("Div", [rounded, self._integers(divisor)])
        axes = (2, 3) if columns else (2,)
        ends = self._graph.add("Gather", [shape, self._integers(*axes)], axis=0)
        starts = self._integers(*(0 for _ in axes))
        return self._graph.add("Slice", [value, starts, ends, self._integers(*axes)])
