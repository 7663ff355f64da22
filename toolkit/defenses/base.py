"""What a defense is: one preprocessing step in three forms that agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import onnx
import onnx.compose
import onnx.version_converter
from numpy.typing import NDArray

from toolkit.defenses.randomness import onnx_spread
from toolkit.errors import InputError
from toolkit.verifiers.entropy import ENTROPY

if TYPE_CHECKING:
    from typing_extensions import TypeIs

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

    def __init__(self, prefix: str, opset: int = 17, batched: str = "", draws: int = 1) -> None:
        """Begin.

        Args:
            prefix: keeps the new names apart from the verifier's.
            opset: the verifier's operator set.
            batched: a value of the graph whose first dimension is the batch; random defenses need it.
            draws: how often every image goes through the defenses, all first draws first.
        """
        self.prefix, self.opset, self.batched, self.draws = prefix, opset, batched, draws
        self.inputs: list[onnx.ValueInfoProto] = []
        self._entropy = ""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def _fresh(self, kind: str) -> str:
        return f"{self.prefix}{kind}_{len(self.nodes) + len(self.initializers)}"

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        name = self._fresh("constant")
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        """Add a node with one output; returns the output's name."""
        name = output or self._fresh(operator.lower())
        self.nodes.append(onnx.helper.make_node(operator, inputs, [name], name=f"{self.prefix}{name}", **attributes))
        return name

    def integer(self, value: int) -> str:
        """Add an int64 scalar."""
        return self.constant(np.array(value, np.int64))

    def entropy(self) -> str:
        """The entropy (draws * N,) of the images, int64 from 0 to 2**62; the same value whenever it is asked for.

        The graph gets the optional input `ENTROPY`. One number for each image is taken as it is; one for all is
        counted up from image to image. Without it ONNX Runtime draws one at every call; all sessions of a process begin
        with the same, so a host that gives no entropy calls `onnxruntime.set_seed` with some before each session.
        """
        if self._entropy:
            return self._entropy
        self.inputs.append(onnx.helper.make_tensor_value_info(ENTROPY, onnx.TensorProto.INT64, ["entropies"]))
        self.initializers.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), ENTROPY))
        whole = self.add("RandomUniform", [], shape=[3], low=0.0, high=float(2**24))
        parts = self.add("Cast", [self.add("Floor", [whole])], to=onnx.TensorProto.INT64)
        scaled = self.add("Mul", [parts, self.constant(np.array([2**38, 2**14, 0], np.int64))])
        rest = self.add("Mod", [parts, self.constant(np.array([2**62, 2**62, 2**14], np.int64))])
        last = self.add("Mul", [rest, self.constant(np.array([0, 0, 1], np.int64))])
        axis = self.constant(np.array([0], np.int64))
        drawn = self.add("ReduceSum", [self.add("Add", [scaled, last]), axis], keepdims=1)
        missing = self.add("Less", [ENTROPY, self.integer(0)])
        base = self.add("Where", [missing, drawn, ENTROPY])
        # Counted up only where one number serves all images.
        count = self.add("Squeeze", [self.add("Shape", [base]), axis])
        alone = self.add("Cast", [self.add("Equal", [count, self.integer(1)])], to=onnx.TensorProto.INT64)
        shape = self.add("Shape", [self.batched])
        batch = self.add("Gather", [shape, self.integer(0)], axis=0)
        index = self.add("Range", [self.integer(0), batch, self.integer(1)])
        self._entropy = self.add("Add", [base, self.add("Mul", [index, alone])])
        if self.draws > 1:
            self._entropy = onnx_spread(self, self._entropy, self.draws)
        return self._entropy

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
    TensorFlow and ONNX forms only come close to `numpy`. A defense that may say `any_range = True` (see `any_range`)
    saves a hardened graph the way to [0, 1] and back.
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


class RandomDefense(Protocol):
    """A defense that draws anew for every image; see `Defense` for the rest.

    Given the same `entropy` (N,), int64 from 0 to 2**62, and `stream`, the three forms draw the same. The stream keeps
    what one step of a profile draws apart from what another does.
    """

    backward: ClassVar[Backward]
    exact: ClassVar[bool]
    random: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name that profiles use."""
        ...

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int) -> NDArray[np.float32]:
        """What a Python service would run."""
        ...

    def tensorflow(self, crops: Any, entropy: Any, stream: int) -> Any:
        """Differentiable in the crops, for attacks that know the defense."""
        ...

    def onnx(self, graph: GraphBuilder, value: str, stream: int) -> str:
        """Add the defense to `graph`, which gets its entropy as an optional input."""
        ...


AnyDefense = Defense | RandomDefense


def any_range(defense: AnyDefense) -> bool:
    """Whether the defense gives the same on values of any range: it commutes with x -> a x + b, a > 0, by channel."""
    return bool(getattr(defense, "any_range", False))


def is_random(defense: AnyDefense) -> TypeIs[RandomDefense]:
    """Whether a defense draws random numbers."""
    return getattr(defense, "random", False)


def apply_numpy(
    defense: AnyDefense, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int
) -> NDArray[np.float32]:
    """The NumPy form of either kind."""
    return defense.numpy(crops, entropy, stream) if is_random(defense) else defense.numpy(crops)


def apply_tensorflow(defense: AnyDefense, crops: Any, entropy: Any, stream: int) -> Any:
    """The TensorFlow form of either kind."""
    return defense.tensorflow(crops, entropy, stream) if is_random(defense) else defense.tensorflow(crops)


def apply_onnx(defense: AnyDefense, graph: GraphBuilder, value: str, stream: int) -> str:
    """The ONNX form of either kind."""
    return defense.onnx(graph, value, stream) if is_random(defense) else defense.onnx(graph, value)
