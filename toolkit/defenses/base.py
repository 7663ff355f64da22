"""What a defense is: one preprocessing step in three forms that agree."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import onnx
import onnx.compose
import onnx.version_converter
from numpy.typing import NDArray

from toolkit.errors import InputError

Backward = Literal["exact", "surrogate", "straight-through"]


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses, 0 if it uses none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def with_opset(model: onnx.ModelProto, opset: int, what: str) -> onnx.ModelProto:
    """The model with another version of ONNX's operators; `what` names it in the message.

    Raises:
        InputError: it cannot be converted.
    """
    if opset_of(model) == opset:
        return model
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and worse
        raise InputError(f"{what} of opset {opset_of(model)} cannot be brought to opset {opset}") from error


class GraphBuilder:
    """Collects the nodes and constants of a defense; values are float32 (N, 3, H, W), RGB in [0, 1]."""

    def __init__(self, prefix: str, opset: int = 17) -> None:
        """`prefix` keeps the new names apart from the verifier's, whose operator set is `opset`."""
        self.prefix, self.opset = prefix, opset
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

    def include(self, model: onnx.ModelProto, value: str) -> str:
        """Add all nodes of a model with one input and one output behind `value`; returns the output's name.

        Raises:
            InputError: the model cannot be brought to this graph's operator set.
        """
        raised = with_opset(model, self.opset, "a defense's network")
        copy = onnx.compose.add_prefix(raised, f"{self._fresh('network')}/").graph
        constants = {tensor.name for tensor in copy.initializer}
        entry = next(v.name for v in copy.input if v.name not in constants)
        self.initializers.extend(copy.initializer)
        for node in copy.node:
            for i, name in enumerate(node.input):
                if name == entry:
                    node.input[i] = value
            self.nodes.append(node)
        return str(copy.output[0].name)


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
