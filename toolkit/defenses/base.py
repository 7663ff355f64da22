"""What a defense is: one preprocessing step in three forms that agree."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import onnx
import onnx.compose
import onnx.version_converter
from numpy.typing import NDArray

from toolkit.errors import InputError


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
        own = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        if own != self.opset:
            try:
                model = onnx.version_converter.convert_version(model, self.opset)
            except Exception as error:  # the converter raises RuntimeError and worse
                raise InputError(
                    f"a network of opset {own} cannot be brought to the verifier's {self.opset}"
                ) from error
        copy = onnx.compose.add_prefix(model, f"{self._fresh('network')}/").graph
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
    """

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
