"""A network whose embedding never moves further than the crop does: Lipschitz constant 1 by construction.

Its layers are almost orthogonal (AOL, Prach and Lampert 2022, arXiv:2208.03160): whatever the parameters are, each
kernel is rescaled so that its largest singular value is at most 1. Half of the channels pass an absolute value, which
no activation beats at keeping lengths. The network sees averages of 4 x 4 pixels: an average of k pixels is shorter
than they are by the square root of k, which the first kernel gives back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from numpy.typing import NDArray
from onnx import helper, numpy_helper

SIDE, AVERAGED = 160, 4
WIDTHS, DEPTH, EMBEDDING_SIZE = (32, 64, 128), 2, 128
_OPSET = 17


class AlmostOrthogonal(keras.layers.Layer):
    """A convolution with zeros around the image, whose kernel is rescaled to a largest singular value of at most 1.

    With `blocks` above 1, blocks of that many pixels squared become channels first.
    """

    def __init__(self, filters: int, size: int, blocks: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.filters, self.size, self.blocks, self.seed = filters, size, blocks, seed

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Begin near an orthogonal matrix in the middle of the kernel, which lets lengths pass."""
        inner = int(shape[-1] or 0) * self.blocks**2
        rng = np.random.default_rng(self.seed)
        kernel = rng.normal(0, 0.01 / self.size, (self.size, self.size, inner, self.filters))
        orthogonal = np.linalg.qr(rng.normal(size=(max(inner, self.filters), min(inner, self.filters))))[0]
        kernel[self.size // 2, self.size // 2] += orthogonal if inner >= self.filters else orthogonal.T
        self.raw = self.add_weight(shape=kernel.shape, initializer=lambda *_, **__: tf.constant(kernel, tf.float32))
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros")

    @property
    def kernel(self) -> tf.Tensor:
        """The rescaled kernel (height, width, in, out): Prach and Lampert 2022, theorem 1, on the narrower side."""
        inner = self.raw.shape[2]
        wide = inner > self.filters
        raw = tf.transpose(self.raw, (0, 1, 3, 2)) if wide else self.raw
        around = [[0, 0], [self.size - 1] * 2, [self.size - 1] * 2, [0, 0]]
        overlaps = tf.nn.conv2d(tf.transpose(raw, (2, 0, 1, 3)), tf.transpose(raw, (0, 1, 3, 2)), 1, around)
        scale = tf.math.rsqrt(tf.reduce_sum(tf.abs(overlaps), axis=(1, 2, 3)) + 1e-12)
        return self.raw * (scale if wide else scale[:, None])

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Convolve."""
        if self.blocks > 1:
            x = tf.nn.space_to_depth(x, self.blocks)
        return tf.nn.conv2d(x, self.kernel, 1, "SAME" if self.size > 1 else "VALID") + self.bias


def folded(x: tf.Tensor) -> tf.Tensor:
    """The activation: the absolute value of the second half of the channels."""
    half = x.shape[-1] // 2
    return tf.concat([x[..., :half], tf.abs(x[..., half:])], axis=-1)


def lipschitz_network() -> keras.Model:
    """A model from averages (N, 40, 40, 3) of pixels in [0, 1] to embeddings (N, D), not of unit length."""
    side = SIDE // AVERAGED
    inputs = keras.Input((side, side, 3))
    x = keras.layers.Rescaling(float(AVERAGED), -AVERAGED / 2)(inputs)
    for stage, width in enumerate(WIDTHS):
        for depth in range(DEPTH):
            x = AlmostOrthogonal(width, 3, 1 if depth else 2, seed=10 * stage + depth)(x)
            x = keras.layers.Lambda(folded)(x)
    x = keras.layers.Reshape((1, 1, -1))(x)
    x = AlmostOrthogonal(EMBEDDING_SIZE, 1, seed=99)(x)
    return keras.Model(inputs, keras.layers.Flatten()(x))


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write the network with its rescaled kernels as a chain of plain ONNX operators: (N, 3, 160, 160) to (N, D)."""
    layers = [layer for layer in model.layers if isinstance(layer, AlmostOrthogonal)]
    window = [AVERAGED, AVERAGED]
    nodes = [helper.make_node("AveragePool", ["input"], ["averages"], kernel_shape=window, strides=window)]
    weights: dict[str, NDArray[np.float32]] = {"middle": np.float32(0.5)}
    nodes.append(helper.make_node("Sub", ["averages", "middle"], ["centered"]))
    value, side = "centered", SIDE // AVERAGED
    for number, layer in enumerate(layers[:-1]):
        kernel = _with_stride(layer.kernel.numpy(), layer.blocks) * (AVERAGED if number == 0 else 1)
        weights[f"kernel{number}"], weights[f"bias{number}"] = kernel, layer.bias.numpy()
        side //= layer.blocks
        nodes.append(
            helper.make_node(
                "Conv", [value, f"kernel{number}", f"bias{number}"], [f"conv{number}"],
                kernel_shape=kernel.shape[2:], strides=[layer.blocks] * 2, pads=[layer.blocks] * 4,
            )
        )  # fmt: skip
        slope = np.repeat(np.float32([1, -1]), layer.filters // 2)
        weights[f"slope{number}"] = slope[:, None, None]
        value = f"folded{number}"
        nodes.append(helper.make_node("PRelu", [f"conv{number}", f"slope{number}"], [value]))
    nodes.append(helper.make_node("Flatten", [value], ["values"]))
    last = layers[-1].kernel.numpy().reshape(side, side, -1, EMBEDDING_SIZE)
    weights["last"] = last.transpose(2, 0, 1, 3).reshape(-1, EMBEDDING_SIZE)
    weights["last_bias"] = layers[-1].bias.numpy()
    nodes.append(helper.make_node("Gemm", ["values", "last", "last_bias"], ["embedding"]))
    graph = helper.make_graph(
        nodes,
        "lipschitz",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", EMBEDDING_SIZE])],
        [numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def _with_stride(kernel: NDArray[Any], blocks: int) -> NDArray[Any]:
    """The kernel (out, in, height, width) that does with strides what `kernel` does to blocks of pixels."""
    height, width, inner, out = kernel.shape
    parts = kernel.reshape(height, width, blocks, blocks, inner // blocks**2, out)
    return parts.transpose(5, 4, 0, 2, 1, 3).reshape(out, -1, height * blocks, width * blocks)
