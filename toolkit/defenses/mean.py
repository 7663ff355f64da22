"""The mean filter: the paper's low-pass defense (section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.parameters import check, number


@dataclass(frozen=True)
class Mean:
    """Replaces each pixel by the mean of the `size` x `size` square around it.

    `size` is from 2 to 31. A square of even size extends one pixel further to the top and left, as in OpenCV. Borders
    are reflect-101.
    """

    name: ClassVar[str] = "mean"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    any_range: ClassVar[bool] = True
    size: int = number(3, 2, 31)

    def __post_init__(self) -> None:
        check(self)

    @property
    def smallest_side(self) -> int:
        """The smallest side of a crop. Reflection at the border needs this many pixels."""
        return self.size // 2 + 1

    @property
    def _padding(self) -> tuple[int, int]:
        return self.size // 2, self.size - 1 - self.size // 2

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply OpenCV's `blur` to each crop."""
        k = (self.size, self.size)
        blurred = [cv2.blur(crop, k, borderType=cv2.BORDER_REFLECT_101) for crop in crops]
        return np.asarray(blurred, np.float32).reshape(crops.shape)

    def tensorflow(self, crops: Any) -> Any:
        """Apply a reflection pad and a depthwise convolution. The gradient is exact."""
        import tensorflow as tf

        kernel = tf.fill((self.size, self.size, 3, 1), np.float32(1.0 / self.size**2))
        padded = tf.pad(crops, [[0, 0], self._padding, self._padding, [0, 0]], mode="REFLECT")
        return tf.nn.depthwise_conv2d(padded, kernel, (1, 1, 1, 1), "VALID")

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add a reflecting Pad and an AveragePool without padding, because its own padding is different."""
        before, after = self._padding
        pads = graph.constant(np.array([0, 0, before, before, 0, 0, after, after], np.int64))
        padded = graph.add("Pad", [value, pads], mode="reflect")
        return graph.add("AveragePool", [padded], kernel_shape=[self.size, self.size])


DEFENSE = Mean
