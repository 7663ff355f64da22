"""The adaptive Wiener filter (Lee 1980), which smooths flat regions and keeps detailed ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.mean import Mean
from toolkit.parameters import check, number


@dataclass(frozen=True)
class Wiener:
    """Moves each pixel toward the mean of the `size` x `size` square around it, more so in flat regions.

    Each channel is filtered separately. With the square's mean m and variance v, x becomes
    m + (x - m) max(v - noise, 0) / max(v, noise), which is the formula of `scipy.signal.wiener`. Borders are
    reflect-101 instead of SciPy's zeros. `size` is odd, from 3 to 31. `noise` is the variance of the noise to remove,
    from 1e-5 to 1; 0.001 is a standard deviation of 8 of 255 levels. The three forms agree to 3e-5 for the smallest
    `noise`, and to 5e-6 for at least 0.001.
    """

    name: ClassVar[str] = "wiener"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    size: int = number(3, 3, 31, step=2)
    noise: float = number(0.001, 1e-5, 1.0)

    def __post_init__(self) -> None:
        check(self)

    @property
    def smallest_side(self) -> int:
        """The smallest side of a crop. Reflection at the border needs this many pixels."""
        return self.size // 2 + 1

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the local mean and variance with OpenCV's `blur`, and apply the formula."""
        filtered = [self._filter(crop) for crop in crops]
        return np.asarray(filtered, np.float32).reshape(crops.shape)

    def _filter(self, crop: NDArray[np.float32]) -> NDArray[np.float32]:
        def blur(value: NDArray[np.float32]) -> NDArray[np.float32]:
            blurred = cv2.blur(value, (self.size, self.size), borderType=cv2.BORDER_REFLECT_101)
            return np.asarray(blurred, np.float32)

        # Centering the range at 0 reduces the rounding error of the difference of the two moments.
        centered = crop - np.float32(0.5)
        mean, noise = blur(centered), np.float32(self.noise)
        variance = blur(centered * centered) - mean * mean
        gain = np.maximum(variance - noise, 0) / np.maximum(variance, noise)
        return np.asarray(mean + (centered - mean) * gain + np.float32(0.5), np.float32)

    def tensorflow(self, crops: Any) -> Any:
        """Apply the same formula with the mean filter's convolutions. The gradient is exact."""
        import tensorflow as tf

        blur = Mean(self.size).tensorflow
        centered = crops - 0.5
        mean = blur(centered)
        variance = blur(tf.square(centered)) - tf.square(mean)
        gain = tf.maximum(variance - self.noise, 0.0) / tf.maximum(variance, self.noise)
        return mean + (centered - mean) * gain + 0.5

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add nodes for the same formula."""
        half, noise, zero = (graph.constant(np.array(v, np.float32)) for v in (0.5, self.noise, 0.0))
        centered = graph.add("Sub", [value, half])
        mean = Mean(self.size).onnx(graph, centered)
        power = Mean(self.size).onnx(graph, graph.add("Mul", [centered, centered]))
        variance = graph.add("Sub", [power, graph.add("Mul", [mean, mean])])
        signal = graph.add("Max", [graph.add("Sub", [variance, noise]), zero])
        gain = graph.add("Div", [signal, graph.add("Max", [variance, noise])])
        detail = graph.add("Mul", [graph.add("Sub", [centered, mean]), gain])
        return graph.add("Add", [graph.add("Add", [mean, detail]), half])


DEFENSE = Wiener
