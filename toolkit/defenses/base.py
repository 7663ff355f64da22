"""What a defense is: one preprocessing step in three forms that agree."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

Backward = Literal["exact", "surrogate", "straight-through"]


class GraphBuilder:
    """Collects the nodes and constants of a defense; values are float32 (N, 3, H, W), RGB in [0, 1]."""

    def __init__(self, prefix: str) -> None:
        """`prefix` keeps the new names apart from the verifier's."""
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def _fresh(self, kind: str) -> str:
        return f"{self.prefix}{kind}_{len(self.nodes) + len(self.initializers)}"

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        name = self._fresh("constant")
        self.initializers.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        """Add a node with one output; returns the output's name."""
        name = output or self._fresh(operator.lower())
        self.nodes.append(onnx.helper.make_node(operator, inputs, [name], name=f"{self.prefix}{name}", **attributes))
        return name


class Defense(Protocol):
    """One preprocessing step: a frozen dataclass whose fields are its parameters.

    Its constructor raises ValueError for a parameter out of range. All forms take and give crops in [0, 1];
    `numpy` and `tensorflow` take (N, H, W, 3), `onnx` adds nodes that take (N, 3, H, W).

    `backward` says what the gradient of the TensorFlow form is: the true one (`exact`), that of a smooth stand-in
    (`surrogate`), or the identity's at the steps that have none (`straight-through`); the last two are the BPDA of
    Athalye et al. 2018, and the forward value is the true defense in all cases. `exact` is false where the
    TensorFlow and ONNX forms only come close to `numpy`.
    """

    backward: ClassVar[Backward]
    exact: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name that profiles use."""
        ...

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """What a Python service would run (NumPy, OpenCV, SciPy)."""
        ...

    def tensorflow(self, crops: Any) -> Any:
        """Differentiable, for attacks that know the defense."""
        ...

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add the defense to `graph` behind `value`; returns the name of the defended value."""
        ...
