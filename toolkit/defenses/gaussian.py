"""The Gaussian filter: a low-pass filter that gives near pixels a larger weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.parameters import check, number


@dataclass(frozen=True)
class GaussianBlur:
    """Smooths with a Gaussian filter.

    The standard deviation `sigma` is from 0.3 to 5 pixels. Borders are reflect-101. The kernel has the size that
    OpenCV uses for 8-bit images, with a radius of about three deviations. It is set explicitly, because OpenCV would
    use a larger kernel for float images. The sides of a crop must be longer than the radius (15 pixels at most). The
    three forms agree to 1e-6.
    """

    name: ClassVar[str] = "gaussian-blur"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    any_range: ClassVar[bool] = True
    sigma: float = number(1.0, 0.3, 5.0)

    def __post_init__(self) -> None:
        check(self)

    @property
    def size(self) -> int:
        """The side of the kernel; an odd number."""
        return round(self.sigma * 6 + 1) | 1

    @property
    def smallest_side(self) -> int:
        """The smallest side of a crop. Reflection at the border needs this many pixels."""
        return self.size // 2 + 1

    def _kernel(self) -> NDArray[np.float32]:
        return np.asarray(cv2.getGaussianKernel(self.size, self.sigma, cv2.CV_32F), np.float32).ravel()

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply OpenCV's `GaussianBlur` to each crop."""
        k = (self.size, self.size)
        blurred = [cv2.GaussianBlur(c, k, self.sigma, borderType=cv2.BORDER_REFLECT_101) for c in crops]
        return np.asarray(blurred, np.float32).reshape(crops.shape)

    def tensorflow(self, crops: Any) -> Any:
        """Apply a reflection pad and two depthwise convolutions. The gradient is exact."""
        import tensorflow as tf

        radius = self.size // 2
        value = tf.pad(crops, [[0, 0], [radius, radius], [radius, radius], [0, 0]], mode="REFLECT")
        for shape in ((self.size, 1, 1, 1), (1, self.size, 1, 1)):
            kernel = np.tile(self._kernel().reshape(shape), (1, 1, 3, 1))
            value = tf.nn.depthwise_conv2d(value, kernel, (1, 1, 1, 1), "VALID")
        return value

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add a reflecting Pad and two grouped Convs."""
        radius = self.size // 2
        pads = graph.constant(np.array([0, 0, radius, radius] * 2, np.int64))
        value = graph.add("Pad", [value, pads], mode="reflect")
        for shape in ((1, 1, self.size, 1), (1, 1, 1, self.size)):
            kernel = graph.constant(np.tile(self._kernel().reshape(shape), (3, 1, 1, 1)))
            value = graph.add("Conv", [value, kernel], group=3)
        return value


DEFENSE = GaussianBlur
