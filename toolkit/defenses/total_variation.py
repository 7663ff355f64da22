"""Total variation denoising (Rudin, Osher, Fatemi 1992) with Chambolle's dual projection (2004)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.parameters import check, number

# The step size of the dual ascent. Chambolle proves convergence up to 1/8 and observes it up to 1/4.
_STEP = 0.125
# Added under the square root, which has no gradient at zero. It changes no pixel by more than 1e-6.
_TINY = 1e-12


@dataclass(frozen=True)
class TotalVariation:
    """Denoises each channel by minimizing its total variation.

    The result approximates the u that minimizes |u - x|^2 / (2 `weight`) + TV(u). TV is isotropic, with forward
    differences that are zero after the last pixel. `weight` is from 1e-6 (almost no change) to 10. A weight of 0.1
    smooths visibly. The number of `iterations`, from 1 to 100, is fixed, so that the three forms agree to 1e-6. The
    gradient is that of the iterations.
    """

    name: ClassVar[str] = "total-variation"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    weight: float = number(0.1, 1e-6, 10.0)
    iterations: int = number(20, 1, 100)

    def __post_init__(self) -> None:
        check(self)

    # With q = weight * p for Chambolle's dual variable p, one iteration is
    #   g = step * gradient(divergence(q) - x);  q = (q + g) / (1 + |g| / weight)
    # and the result is x - divergence(q). This form stays finite for a weight near zero.

    @property
    def _inverse_weight_squared(self) -> float:
        return 1.0 / self.weight**2

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the iterations on all crops at once."""
        down, right = np.zeros_like(crops), np.zeros_like(crops)
        rate, tiny = np.float32(self._inverse_weight_squared), np.float32(_TINY)
        for _ in range(self.iterations):
            rest = (_divergence(down, right) - crops) * np.float32(_STEP)
            g_down = np.diff(rest, axis=1, append=rest[:, -1:])
            g_right = np.diff(rest, axis=2, append=rest[:, :, -1:])
            scale = 1 + np.sqrt((g_down * g_down + g_right * g_right) * rate + tiny)
            down, right = (down + g_down) / scale, (right + g_right) / scale
        return np.clip(crops - _divergence(down, right), 0, 1)

    def tensorflow(self, crops: Any) -> Any:
        """Run the same iterations, unrolled."""
        import tensorflow as tf

        def differences(value: Any, axis: int) -> Any:
            last = value[:, -1:] if axis == 1 else value[:, :, -1:]
            longer = tf.concat([value, last], axis)
            return (longer[:, 1:] if axis == 1 else longer[:, :, 1:]) - value

        def divergence(down: Any, right: Any) -> Any:
            above = tf.pad(down, [[0, 0], [1, 0], [0, 0], [0, 0]])[:, :-1]
            left = tf.pad(right, [[0, 0], [0, 0], [1, 0], [0, 0]])[:, :, :-1]
            return (down - above) + (right - left)

        down, right = tf.zeros_like(crops), tf.zeros_like(crops)
        for _ in range(self.iterations):
            rest = (divergence(down, right) - crops) * _STEP
            g_down, g_right = differences(rest, 1), differences(rest, 2)
            squared = (tf.square(g_down) + tf.square(g_right)) * self._inverse_weight_squared
            scale = 1.0 + tf.sqrt(squared + _TINY)
            down, right = (down + g_down) / scale, (right + g_right) / scale
        return tf.clip_by_value(crops - divergence(down, right), 0.0, 1.0)

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add the same iterations, unrolled. `down` and `right` are stacked as six channels for a single Conv."""
        steps = np.zeros((3, 2, 2, 2), np.float32)
        # Each group has the channels (down, right).
        steps[:, 0] = [[-1, 0], [1, 0]]
        steps[:, 1] = [[-1, 1], [0, 0]]
        gradient = graph.constant(steps.reshape(6, 1, 2, 2) * np.float32(_STEP))
        # The divergence is the negative adjoint: this pixel minus the previous one. The image is padded with a row and
        # a column of zeros at the start.
        divergence = graph.constant(np.ascontiguousarray(-steps[:, :, ::-1, ::-1]))
        rate = np.float32(self._inverse_weight_squared)
        squares = graph.constant(np.full((6, 2, 1, 1), rate, np.float32))
        after = graph.constant(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64))
        zero, one, tiny = (graph.constant(np.array(v, np.float32)) for v in (0, 1, _TINY))

        def diverge(dual: str) -> str:
            return graph.add("Conv", [dual, divergence], group=3, pads=[1, 1, 0, 0])

        dual = ""
        for _ in range(self.iterations):
            rest = graph.add("Sub", [diverge(dual), value]) if dual else graph.add("Neg", [value])
            g = graph.add("Conv", [graph.add("Pad", [rest, after], mode="edge"), gradient], group=3)
            squared = graph.add("Conv", [graph.add("Mul", [g, g]), squares], group=3)
            scale = graph.add("Add", [graph.add("Sqrt", [graph.add("Add", [squared, tiny])]), one])
            dual = graph.add("Div", [graph.add("Add", [dual, g]) if dual else g, scale])
        return graph.add("Clip", [graph.add("Sub", [value, diverge(dual)]), zero, one])


def _divergence(down: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.diff(down, axis=1, prepend=np.float32(0)) + np.diff(right, axis=2, prepend=np.float32(0))


DEFENSE = TotalVariation
