"""The interface of defenses: one preprocessing step, implemented in NumPy, TensorFlow and ONNX."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import onnx
import onnx.compose
import onnx.version_converter
from numpy.typing import NDArray

from toolkit.defenses.randomness import onnx_spread
from toolkit.errors import refusing
from toolkit.verifiers.entropy import ENTROPY
from toolkit.verifiers.onnx_file import opset_of
from toolkit.verifiers.trial import ONNX, run_apart

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Backward = Literal["exact", "surrogate", "straight-through"]


def with_opset(model: onnx.ModelProto, opset: int, what: str) -> onnx.ModelProto:
    """Convert a model to another version of ONNX's standard operator set.

    Args:
        model: the model.
        opset: the wanted version.
        what: what the model is, for the error message.

    Raises:
        InputError: the model cannot be converted.
    """
    if opset_of(model) == opset:
        return model
    # The converter is native code, which some files crash.
    about = {"opset": opset, "what": what}
    return onnx.load_model_from_string(run_apart(_convert, about, model.SerializeToString(), what, ONNX))


def _convert(about: dict[str, Any], content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    with refusing(f"{about['what']}: cannot be converted from opset {opset_of(model)} to opset {about['opset']}"):
        return bytes(onnx.version_converter.convert_version(model, about["opset"]).SerializeToString())


class GraphBuilder:
    """Collects the nodes and constants of defenses. Images are float32 (N, 3, H, W), RGB in [0, 1]."""

    def __init__(self, prefix: str, opset: int = 17, batched: str = "", draws: int = 1) -> None:
        """Start without nodes.

        Args:
            prefix: the prefix of all new names, which separates them from the verifier's names.
            opset: the version of the verifier's operator set.
            batched: the name of a value whose first dimension is the batch size; random defenses need it.
            draws: how often every image goes through the defenses. Draw 1 of all images comes first, then draw 2, and
                so on.
        """
        self.prefix, self.opset, self.batched, self.draws = prefix, opset, batched, draws
        self.inputs: list[onnx.ValueInfoProto] = []
        self._entropy = ""
        self._drawn = draws == 1
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def _fresh(self, kind: str) -> str:
        return f"{self.prefix}{kind}_{len(self.nodes) + len(self.initializers)}"

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant. Return its name."""
        name = self._fresh("constant")
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        """Add a node with one output. Return the name of the output."""
        name = output or self._fresh(operator.lower())
        self.nodes.append(onnx.helper.make_node(operator, inputs, [name], name=f"{self.prefix}{name}", **attributes))
        return name

    def integer(self, value: int) -> str:
        """Add an int64 scalar. Return its name."""
        return self.constant(np.array(value, np.int64))

    def entropy(self) -> str:
        """Return the name of the images' entropies (draws * N,), int64 from 0 to 2**62.

        The first call adds the nodes, and later calls return the same name. The graph gets the optional input
        `ENTROPY`, which has either one number per image, or one number for all images. In the second case the number
        is incremented from image to image. Without this input, ONNX Runtime draws a number in every call. All sessions
        of a process start with the same number, so a host that gives no entropy must call `onnxruntime.set_seed` with
        a random number before it creates a session.
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
        # The number is incremented from image to image only if there is one number for all images.
        count = self.add("Squeeze", [self.add("Shape", [base]), axis])
        alone = self.add("Cast", [self.add("Equal", [count, self.integer(1)])], to=onnx.TensorProto.INT64)
        shape = self.add("Shape", [self.batched])
        batch = self.add("Gather", [shape, self.integer(0)], axis=0)
        index = self.add("Range", [self.integer(0), batch, self.integer(1)])
        self._entropy = self.add("Add", [base, self.add("Mul", [index, alone])])
        if self.draws > 1:
            self._entropy = onnx_spread(self, self._entropy, self.draws)
        return self._entropy

    def drawn(self, value: str) -> str:
        """Repeat the images `value` for all draws, unless they are repeated already. Return the name of the result.

        The nodes before it run once for all draws.
        """
        if self._drawn:
            return value
        self._drawn = True
        return self.add("Tile", [value, self.constant(np.array([self.draws, 1, 1, 1]))])

    def include(self, model: onnx.ModelProto, value: str) -> str:
        """Add all nodes of a model with one input and one output after `value`. Return the name of the output.

        Raises:
            InputError: the model cannot be converted to this graph's operator set.
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

    The constructor raises ValueError if a parameter is out of range. All forms map crops in [0, 1] to crops in [0, 1].
    `numpy` and `tensorflow` take (N, H, W, 3). `onnx` adds nodes that take (N, 3, H, W).

    `backward` says what the gradient of the TensorFlow form is: the true gradient (`exact`), the gradient of a smooth
    approximation (`surrogate`), or the true gradient with the identity for steps without a useful gradient
    (`straight-through`). The last two are BPDA (Athalye et al. 2018). The forward value is always the true defense.
    `exact` is false if the TensorFlow and ONNX forms only approximate `numpy`.

    A defense may declare more, as a class variable or a property. Read these declarations with the function in the
    table, which knows the default.

    | declaration | type | default | function |
    | --- | --- | --- | --- |
    | `random` | bool | False | `is_random` |
    | `any_range` | bool | False | `any_range` |
    | `smallest_side` | int | 1 | `smallest_side` |
    | `multiple` | int | 1 | `multiple` |
    | `sides` | (int or None, int or None) | (None, None) | `sides` |
    | `opset` | int | 0 | `oldest_opset` |
    | `sha256` | str | "" | `file_hash` |
    """

    backward: ClassVar[Backward]
    exact: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name of the defense in profiles."""
        ...

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the defense with NumPy, OpenCV and SciPy, as a Python service would."""
        ...

    def tensorflow(self, crops: Any) -> Any:
        """Apply the defense in TensorFlow, with gradients for attacks that know the defense."""
        ...

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add the defense to `graph` after `value`. Return the name of the defended value."""
        ...


class RandomDefense(Protocol):
    """A defense that draws random numbers for every image. See `Defense` for everything else.

    The three forms draw the same numbers from the same `entropy` (N,), int64 from 0 to 2**62, and the same `stream`.
    The streams make the draws of different steps of a profile independent.
    """

    backward: ClassVar[Backward]
    exact: ClassVar[bool]
    random: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name of the defense in profiles."""
        ...

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int) -> NDArray[np.float32]:
        """Apply the defense with NumPy, as a Python service would."""
        ...

    def tensorflow(self, crops: Any, entropy: Any, stream: int) -> Any:
        """Apply the defense in TensorFlow, with gradients with respect to the crops."""
        ...

    def onnx(self, graph: GraphBuilder, value: str, stream: int) -> str:
        """Add the defense to `graph` after `value`. The graph gets the entropy as an optional input."""
        ...


AnyDefense = Defense | RandomDefense


def is_random(defense: AnyDefense) -> TypeIs[RandomDefense]:
    """Return whether the defense draws random numbers. Such a defense is a `RandomDefense`."""
    return bool(getattr(defense, "random", False))


def any_range(defense: AnyDefense) -> bool:
    """Return whether the defense works on values of any range, and not only on [0, 1].

    Such a defense commutes with x -> a x + b for a > 0 in each channel. A hardened graph with only such defenses does
    not convert its input to [0, 1] and back.
    """
    return bool(getattr(defense, "any_range", False))


def smallest_side(defense: AnyDefense) -> int:
    """Return the smallest height and width of a crop, in pixels, that the defense accepts."""
    return int(getattr(defense, "smallest_side", 1))


def multiple(defense: AnyDefense) -> int:
    """Return the number that the height and width of a crop must be multiples of."""
    return int(getattr(defense, "multiple", 1))


def sides(defense: AnyDefense) -> tuple[int | None, int | None]:
    """Return the only height and the only width of a crop that the defense accepts; None if it accepts any."""
    height, width = getattr(defense, "sides", (None, None))
    return height, width


def oldest_opset(defense: AnyDefense) -> int:
    """Return the oldest ONNX operator set that the defense can be built with; 0 if it has no requirement."""
    return int(getattr(defense, "opset", 0))


def nested_defenses(defense: AnyDefense) -> tuple[AnyDefense, ...]:
    """Return the defenses that are parameters of this defense, in order. Most defenses have none."""
    declared = [field for field in fields(defense) if field.metadata.get("defenses")]  # type: ignore[arg-type]
    return tuple(option for field in declared for option in getattr(defense, field.name))


def file_hash(defense: AnyDefense) -> str:
    """Return a hash of the files that the defense reads; empty if it reads none."""
    return str(getattr(defense, "sha256", ""))


def apply_numpy(
    defense: AnyDefense, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int
) -> NDArray[np.float32]:
    """Apply the NumPy form of a defense, random or not."""
    return defense.numpy(crops, entropy, stream) if is_random(defense) else defense.numpy(crops)


def apply_tensorflow(defense: AnyDefense, crops: Any, entropy: Any, stream: int) -> Any:
    """Apply the TensorFlow form of a defense, random or not."""
    return defense.tensorflow(crops, entropy, stream) if is_random(defense) else defense.tensorflow(crops)


def apply_onnx(defense: AnyDefense, graph: GraphBuilder, value: str, stream: int) -> str:
    """Add the ONNX form of a defense, random or not. Return the name of the defended value."""
    return defense.onnx(graph, value, stream) if is_random(defense) else defense.onnx(graph, value)
