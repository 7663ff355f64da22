"""Bit depth reduction (Xu et al. 2018, "Feature Squeezing")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.gradients import straight_through
from toolkit.parameters import check, number


@dataclass(frozen=True)
class BitDepth:
    """Rounds each channel to 2^`bits` levels.

    The levels are evenly spaced from 0 to 1. `bits` is from 1 to 7. Ties are rounded to the even level. The three
    forms are equal. The gradient is that of the identity, because the true gradient is zero.
    """

    name: ClassVar[str] = "bit-depth"
    backward: ClassVar[Backward] = "straight-through"
    exact: ClassVar[bool] = True
    bits: int = number(4, 1, 7)

    def __post_init__(self) -> None:
        check(self)

    @property
    def _steps(self) -> np.float32:
        return np.float32(2**self.bits - 1)

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Round crops to the levels."""
        return np.asarray(np.rint(crops * self._steps) / self._steps, np.float32)

    def tensorflow(self, crops: Any) -> Any:
        """Round crops to the levels, with the gradient of the identity."""
        import tensorflow as tf

        return straight_through(lambda x: tf.round(x * self._steps) / self._steps, crops)

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add Mul, Round and Div nodes."""
        steps = graph.constant(np.array(self._steps))
        return graph.add("Div", [graph.add("Round", [graph.add("Mul", [value, steps])]), steps])


DEFENSE = BitDepth
