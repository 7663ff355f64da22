"""Pixel dropout: random pixels are dropped and filled in from their neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.randomness import onnx_uniforms, tensorflow_uniforms, uniforms
from toolkit.parameters import check, number

_EMPTY = np.float32(1e-6)


@dataclass(frozen=True)
class PixelDropout:
    """Drops random pixels, and replaces each by the mean of its kept 3 x 3 neighbors.

    The probability `share` is from 0.01 to 0.5. A dropped pixel without a kept neighbor becomes black. Borders are
    reflect-101. The method is normalized convolution (Knutsson and Westin 1993).
    """

    name: ClassVar[str] = "pixel-dropout"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    random: ClassVar[bool] = True
    share: float = number(0.25, 0.01, 0.5)

    def __post_init__(self) -> None:
        check(self)

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int) -> NDArray[np.float32]:
        """Divide OpenCV's `blur` of the kept pixels by the `blur` of the mask."""
        n, height, width, _ = crops.shape
        kept = (uniforms(entropy, stream, height * width) >= np.float32(self.share)).astype(np.float32)
        result = np.empty_like(crops)
        for i, mask in enumerate(kept.reshape(n, height, width, 1)):
            around = cv2.blur(crops[i] * mask, (3, 3), borderType=cv2.BORDER_REFLECT_101)
            count = cv2.blur(mask, (3, 3), borderType=cv2.BORDER_REFLECT_101)[..., None]
            result[i] = mask * crops[i] + (1 - mask) * around / np.maximum(count, _EMPTY)
        return result

    def tensorflow(self, crops: Any, entropy: Any, stream: int) -> Any:
        """Drop the same pixels. The result is linear in the crops, so the gradient is exact."""
        import tensorflow as tf

        shape = tf.shape(crops)
        u = tensorflow_uniforms(entropy, stream, shape[1] * shape[2])
        mask = tf.reshape(tf.cast(u >= self.share, tf.float32), (shape[0], shape[1], shape[2], 1))

        def blurred(x: Any, channels: int) -> Any:
            padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="REFLECT")
            return tf.nn.depthwise_conv2d(padded, tf.fill((3, 3, channels, 1), np.float32(1 / 9)), (1,) * 4, "VALID")

        around = blurred(crops * mask, 3) / tf.maximum(blurred(mask, 1), _EMPTY)
        return mask * crops + (1 - mask) * around

    def onnx(self, graph: GraphBuilder, value: str, stream: int) -> str:
        """Add nodes that drop the same pixels."""
        shape = graph.add("Shape", [value])
        n, h, w = (graph.add("Gather", [shape, graph.constant(np.array([i], np.int64))], axis=0) for i in (0, 2, 3))
        scalar = graph.constant(np.array([0], np.int64))
        u = onnx_uniforms(graph, stream, graph.add("Squeeze", [graph.add("Mul", [h, w]), scalar]))
        dropped = graph.add("Less", [u, graph.constant(np.array(self.share, np.float32))])
        one_channel = graph.add("Concat", [n, graph.constant(np.array([1], np.int64)), h, w], axis=0)
        gone = graph.add("Reshape", [graph.add("Cast", [dropped], to=1), one_channel])
        mask = graph.add("Sub", [graph.constant(np.array(1, np.float32)), gone])

        def blurred(x: str, channels: int) -> str:
            pads = graph.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
            kernel = graph.constant(np.full((channels, 1, 3, 3), 1 / 9, np.float32))
            return graph.add("Conv", [graph.add("Pad", [x, pads], mode="reflect"), kernel], group=channels)

        kept = graph.add("Mul", [value, mask])
        count = graph.add("Max", [blurred(mask, 1), graph.constant(np.array(_EMPTY))])
        around = graph.add("Div", [blurred(kept, 3), count])
        return graph.add("Add", [kept, graph.add("Mul", [gone, around])])


DEFENSE = PixelDropout
