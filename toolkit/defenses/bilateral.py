"""The bilateral filter (Tomasi and Manduchi 1998), which smooths but keeps edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.windows import onnx_window, tensorflow_window
from toolkit.parameters import check, number


@dataclass(frozen=True)
class Bilateral:
    """Averages the neighbors in a disk, weighted by their distance in space and in color.

    The disk has the diameter `size`. As in OpenCV, the color distance is the sum of the channels' absolute differences
    (0 to 3), and the weight is exp(-color^2 / (2 sigma_color^2) - space^2 / (2 sigma_space^2)). `size` is odd, from 3
    to 9. `sigma_color` is from 0.01 to 3, and `sigma_space` from 0.3 to 10 pixels. Borders are reflect-101. The three
    forms agree to 2e-6 with OpenCV 4.10 and 5, although OpenCV interpolates the weights from a table.
    """

    name: ClassVar[str] = "bilateral"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    size: int = number(5, 3, 9, step=2)
    sigma_color: float = number(0.1, 0.01, 3.0)
    sigma_space: float = number(2.0, 0.3, 10.0)

    def __post_init__(self) -> None:
        check(self)

    @property
    def smallest_side(self) -> int:
        """The smallest side of a crop. Reflection at the border needs this many pixels."""
        return self.size // 2 + 1

    def _neighbors(self) -> Iterator[tuple[int, int, np.float32]]:
        """Yield the row, column and spatial exponent of every neighbor in the disk, without the pixel itself."""
        radius = self.size // 2
        for i in range(self.size):
            for j in range(self.size):
                squared = (i - radius) ** 2 + (j - radius) ** 2
                if 0 < squared <= radius**2:
                    yield i, j, np.float32(-squared / (2 * self.sigma_space**2))

    @property
    def _color_factor(self) -> np.float32:
        return np.float32(-1 / (2 * self.sigma_color**2))

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply OpenCV's `bilateralFilter` to each crop."""
        border = cv2.BORDER_REFLECT_101
        filtered = [
            cv2.bilateralFilter(
                np.ascontiguousarray(c), self.size, self.sigma_color, self.sigma_space, borderType=border
            )
            for c in crops
        ]
        return np.asarray(filtered, np.float32).reshape(crops.shape)

    def tensorflow(self, crops: Any) -> Any:
        """Add up the neighbors one by one, so that memory does not grow with the disk. The gradient is exact."""
        import tensorflow as tf

        radius = self.size // 2
        padded = tf.pad(crops, [[0, 0], [radius, radius], [radius, radius], [0, 0]], mode="REFLECT")
        total, weights = crops, tf.ones_like(crops[..., :1])
        for i, j, space in self._neighbors():
            neighbor = tensorflow_window(padded, self.size, i, j)
            distance = tf.reduce_sum(tf.abs(neighbor - crops), axis=-1, keepdims=True)
            weight = tf.exp(tf.square(distance) * self._color_factor + space)
            total += weight * neighbor
            weights += weight
        return total / weights

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add the same computation. The sum over channels is a 1 x 1 Conv, which is the same in all opsets."""
        radius = self.size // 2
        pads = graph.constant(np.array([0, 0, radius, radius] * 2, np.int64))
        ones = graph.constant(np.ones((1, 3, 1, 1), np.float32))
        factor = graph.constant(np.array(self._color_factor))
        padded = graph.add("Pad", [value, pads], mode="reflect")
        total, weights = value, graph.constant(np.array(1, np.float32))
        for i, j, space in self._neighbors():
            neighbor = onnx_window(graph, padded, self.size, i, j)
            distance = graph.add("Conv", [graph.add("Abs", [graph.add("Sub", [neighbor, value])]), ones])
            exponent = graph.add("Mul", [graph.add("Mul", [distance, distance]), factor])
            weight = graph.add("Exp", [graph.add("Add", [exponent, graph.constant(np.array(space))])])
            total = graph.add("Add", [total, graph.add("Mul", [weight, neighbor])])
            weights = graph.add("Add", [weights, weight])
        return graph.add("Div", [total, weights])


DEFENSE = Bilateral
