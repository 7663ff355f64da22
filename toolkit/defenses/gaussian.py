"""The Gaussian filter: a low-pass defense that weighs near pixels more than the mean does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.parameters import check, number


@dataclass(frozen=True)
class GaussianBlur:
    """Smooths with a separable Gaussian of deviation `sigma` (0.3 to 5 pixels); borders are reflect-101.

    The kernel is as wide as OpenCV takes it for 8-bit images, about three deviations to each side, and is passed
    explicitly, because OpenCV takes a wider one for float images. A crop's sides must be longer than that radius
    (15 pixels at the most). The three forms agree to 1e-6.
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
        """The side of the kernel, odd."""
        return round(self.sigma * 6 + 1) | 1

    @property
    def smallest_side(self) -> int:
        """Of a crop: what is reflected at its border must lie within it."""
        return self.size // 2 + 1

    def _kernel(self) -> NDArray[np.float32]:
        return np.asarray(cv2.getGaussianKernel(self.size, self.sigma, cv2.CV_32F), np.float32).ravel()

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """OpenCV's `GaussianBlur`, crop by crop."""
        k = (self.size, self.size)
        blurred = [cv2.GaussianBlur(c, k, self.sigma, borderType=cv2.BORDER_REFLECT_101) for c in crops]
        return np.asarray(blurred, np.float32).reshape(crops.shape)

    def tensorflow(self, crops: Any) -> Any:
        """Reflecting pad and two depthwise convolutions; linear, so its gradient is exact."""
        import tensorflow as tf

        radius = self.size // 2
        value = tf.pad(crops, [[0, 0], [radius, radius], [radius, radius], [0, 0]], mode="REFLECT")
        for shape in ((self.size, 1, 1, 1), (1, self.size, 1, 1)):
            kernel = np.tile(self._kernel().reshape(shape), (1, 1, 3, 1))
            value = tf.nn.depthwise_conv2d(value, kernel, (1, 1, 1, 1), "VALID")
        return value

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Reflecting Pad and two grouped Convs."""
        radius = self.size // 2
        pads = graph.constant(np.array([0, 0, radius, radius] * 2, np.int64))
        value = graph.add("Pad", [value, pads], mode="reflect")
        for shape in ((1, 1, self.size, 1), (1, 1, 1, self.size)):
            kernel = graph.constant(np.tile(self._kernel().reshape(shape), (3, 1, 1, 1)))
            value = graph.add("Conv", [value, kernel], group=3)
        return value


DEFENSE = GaussianBlur
