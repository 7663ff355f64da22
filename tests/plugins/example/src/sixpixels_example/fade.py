"""A defense that lowers the contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.parameters import check, number


@dataclass(frozen=True)
class Fade:
    """Moves each value toward middle gray; `share` of the distance is left."""

    name: ClassVar[str] = "fade"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    share: float = number(0.9, 0.1, 1.0)

    def __post_init__(self) -> None:
        check(self)

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fade the crops."""
        return np.float32(0.5) + np.float32(self.share) * (crops - np.float32(0.5))

    def tensorflow(self, crops: Any) -> Any:
        """Fade the crops; the gradient is exact."""
        return 0.5 + self.share * (crops - 0.5)

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add the nodes."""
        half, share = (graph.constant(np.array(x, np.float32)) for x in (0.5, self.share))
        return graph.add("Add", [graph.add("Mul", [graph.add("Sub", [value, half]), share]), half])
