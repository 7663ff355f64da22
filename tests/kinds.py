"""A small verifier in the forms that exporters write: other operator sets, frozen batches, types, orders and outputs.

Each kind is one file. What it must compute, ONNX Runtime says alone, one crop at a time (`reference`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.models import MANIFEST
from toolkit.defenses.base import with_opset
from toolkit.verifiers.manifest import Manifest, read_manifest

SIDE, SIZE, CHANNELS = 16, 16, 8
OPSET = 18
Nodes = list[onnx.NodeProto]
Arrays = dict[str, NDArray[Any]]
_RNG = np.random.default_rng(5)


def node(operator: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    """A node whose inputs and outputs are separated by spaces; `-` is an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, outputs.split(), **attributes)


def weights(*shape: int) -> NDArray[np.float32]:
    return _RNG.normal(size=shape).astype(np.float32)


_CONV = np.abs(weights(CHANNELS, 3, 3, 3)) / 27
_CONV[::2] += weights(CHANNELS // 2, 3, 3, 3) / 9
BASE: Arrays = {
    "scale": np.float32(1 / 255).reshape(1),
    "kernel": _CONV,
    "bias": weights(CHANNELS) / 10,
    "projection": weights(CHANNELS, SIZE) + 0.5,
}
FLAT = [node("Flatten", "pooled", "flat")]


@dataclass(frozen=True)
class Kind:
    """One form of the verifier.

    Attributes:
        middle: nodes from `map` (N, 8, 8, 8) to `mixed`.
        flat: nodes from `pooled` (N, 8, 1, 1) to `flat` (N, 8).
        head: nodes from `flat` to `embedding`.
        constants: of these nodes.
        batch: what the file says of the batch.
        shape: the embedding's shape in the file.
        input: the type of the input tensor.
        after: changes the finished model.
        opset: of the operators.
        gradients: whether attacks with gradients must work.
        fans: whether profiles must work that run the verifier on several variants at once.
        small: whether it can be quantized.
    """

    middle: Nodes = field(default_factory=lambda: [node("Identity", "map", "mixed")])
    flat: Nodes = field(default_factory=lambda: FLAT)
    head: Nodes = field(default_factory=lambda: [node("MatMul", "flat projection", "embedding")])
    constants: Arrays = field(default_factory=dict)
    batch: int | str = "batch"
    shape: tuple[int | str, ...] | None = None
    input: int = TensorProto.FLOAT
    after: Callable[[onnx.ModelProto], onnx.ModelProto | None] = lambda _: None
    opset: int = OPSET
    gradients: bool = True
    fans: bool = True
    small: bool = True

    @property
    def common(self) -> bool:
        """Whether it differs from the plain form in an operator alone, which neither batch nor type depends on."""
        return self.middle != Kind().middle

    def model(self) -> onnx.ModelProto:
        whole = self.input == TensorProto.FLOAT
        start = [] if whole else [node("Cast", "input", "real", to=TensorProto.FLOAT)]
        nodes = [
            *start,
            node("Mul", f"{'input' if whole else 'real'} scale", "scaled"),
            node("Conv", "scaled kernel bias", "convolved", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", "convolved", "map"),
            *self.middle,
            node("GlobalAveragePool", "mixed", "pooled"),
            *self.flat,
            *self.head,
        ]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("input", self.input, [self.batch, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, self.shape or (self.batch, SIZE))],
            [numpy_helper.from_array(value, name) for name, value in {**BASE, **self.constants}.items()],
        )
        copy = onnx.ModelProto()
        copy.CopyFrom(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10))
        return self.after(copy) or copy

    def write(self, folder: Path, threshold: float = 0.5) -> Manifest:
        """Write the file and its manifest."""
        onnx.save(self.model(), folder / "tiny.onnx")
        (folder / "tiny.toml").write_text(
            MANIFEST.format(
                name="tiny", side=SIDE, layout="NCHW", channels="RGB", range=[0, 255], mean=0.0, std=1.0, size=SIZE,
                metric="euclidean", threshold=threshold, maximum=40 * threshold,
            )
        )  # fmt: skip
        return read_manifest(folder / "tiny.toml")


def reference(manifest: Manifest) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The verifier as ONNX Runtime alone runs it, from crops (N, H, W, 3) in [0, 1], one crop in each call."""
    session = onnxruntime.InferenceSession(str(manifest.model), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}[entry.type]
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else 1

    def embed(crops: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = []
        for crop in crops:
            values = crop.transpose(2, 0, 1)[None] * np.float32(255)
            tensor = (np.rint(values).clip(0, 255) if kind is np.uint8 else values).astype(kind)
            found = session.run(["embedding"], {"input": np.repeat(tensor, batch, axis=0)})[0]
            rows.append(np.asarray(found, np.float32).reshape(batch, SIZE)[0])
        return np.stack(rows) if rows else np.empty((0, SIZE), np.float32)

    return embed


def raised(opset: int) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    return lambda model: with_opset(model, opset, "tiny")


def out_of_order(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def halves(model: onnx.ModelProto, *, inside: bool = True) -> None:
    """Compute in float16, as ONNX Runtime's converter leaves it: casts behind the input, nodes in another order."""
    for i, tensor in enumerate(model.graph.initializer):
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            model.graph.initializer[i].CopyFrom(numpy_helper.from_array(value.astype(np.float16), tensor.name))
    if not inside:
        return
    for one in model.graph.node:
        for i, name in enumerate(one.input):
            one.input[i] = "half_input" if name == "input" else name
        for i, name in enumerate(one.output):
            one.output[i] = "half_embedding" if name == "embedding" else name
    model.graph.node.append(node("Cast", "input", "half_input", to=TensorProto.FLOAT16))
    model.graph.node.append(node("Cast", "half_embedding", "embedding", to=TensorProto.FLOAT))


def half_input(model: onnx.ModelProto) -> None:
    """Everything is in float16, input and output too."""
    halves(model, inside=False)
    del model.graph.node[0]
    model.graph.node[0].input[0] = "input"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def with_ages(model: onnx.ModelProto) -> None:
    """An age by Softmax first, and then the embedding."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones((CHANNELS, 3), np.float32), "ages_of"))
    model.graph.node.extend([node("MatMul", "flat ages_of", "ages"), node("Softmax", "ages", "age", axis=1)])
    kept = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch", 3]))
    model.graph.output.extend(kept)


def shared_constants(model: onnx.ModelProto) -> None:
    """Constants that several nodes share come through Identity, as PyTorch writes them."""
    model.graph.node.insert(0, node("Identity", "kernel", "kernel_again"))
    next(n for n in model.graph.node if n.op_type == "Conv").input[1] = "kernel_again"


def constants_as_inputs(model: onnx.ModelProto) -> None:
    """As files of version 3 of the format have them."""
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def branching(kind: str) -> Callable[[onnx.ModelProto], None]:
    """The head is computed in the body of an If or a Loop, which reads names from outside."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        head = graph.node.pop()
        out = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
        if kind == "Loop":
            also = [helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])]
            body = helper.make_graph(
                [node("MatMul", "flat projection", "product"), node("Add", "state product", "inner"),
                 node("Identity", "go", "go_on")],
                "body",
                [helper.make_tensor_value_info("i", TensorProto.INT64, []),
                 helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                 helper.make_tensor_value_info("state", TensorProto.FLOAT, None)],
                [*also, *out],
            )  # fmt: skip
            graph.initializer.append(numpy_helper.from_array(np.array(2), "turns"))
            graph.initializer.append(numpy_helper.from_array(np.zeros((1, SIZE), np.float32), "start"))
            graph.node.append(node("Loop", "turns - start", "embedding", body=body))
            return
        bodies = [
            helper.make_graph([node("MatMul", f"flat {name}", "inner")], name, [], out)
            for name in ("projection", "other")
        ]
        graph.initializer.append(numpy_helper.from_array(BASE["projection"][::-1].copy(), "other"))
        if kind == "If":
            graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
        else:  # the condition depends on the input
            graph.initializer.append(numpy_helper.from_array(np.float32(-1), "least"))
            graph.node.extend(
                [node("ReduceMax", "flat", "largest", keepdims=0), node("Greater", "largest least", "condition")]
            )
        graph.node.append(
            helper.make_node("If", ["condition"], [head.output[0]], then_branch=bodies[0], else_branch=bodies[1])
        )

    return change


def function(model: onnx.ModelProto) -> None:
    """The head is a function of the model's own."""
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Head", "local"
    made = helper.make_function(
        "local", "Head", ["a", "b"], ["c"], [node("MatMul", "a b", "c")], [helper.make_opsetid("", OPSET)]
    )
    model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("local", 1))


COMPUTED = [
    node("Shape", "pooled", "sizes"),
    node("Slice", "sizes zero one zero", "counts"),
    node("Gather", "counts first", "count", axis=0),
    node("Unsqueeze", "count zero", "counted"),
    node("Concat", "counted rest", "wanted", axis=0),
    node("Reshape", "pooled wanted", "flat"),
]
NUMBERS: Arrays = {
    "zero": np.array([0]), "one": np.array([1]), "first": np.array(0), "rest": np.array([-1]),
}  # fmt: skip


def frozen(batch: int) -> Kind:
    """The batch is fixed, and also written into a Reshape."""
    shape = [1, -1] if batch == 1 else [batch, CHANNELS]
    return Kind(
        flat=[node("Reshape", "pooled wanted", "flat")], constants={"wanted": np.array(shape)}, batch=batch
    )  # fmt: skip


def mixing(*nodes: onnx.NodeProto, **constants: NDArray[Any]) -> Kind:
    return Kind(middle=list(nodes), constants=constants)


NEWEST = min(onnx.defs.onnx_opset_version(), 25)
KINDS: dict[str, Kind] = {
    "as it is": Kind(),
    "opset 7": Kind(opset=7),
    "opset 9": Kind(opset=9),
    "opset 11": Kind(opset=11),
    "the newest opset": Kind(opset=NEWEST),
    "batch of 1": Kind(batch=1),
    "batch of 2": Kind(batch=2),
    "batch of 1 in a Reshape": frozen(1),
    "batch of 2 in a Reshape": frozen(2),
    "opset 7, batch of 1 in a Reshape": Kind(
        flat=frozen(1).flat, constants=frozen(1).constants, batch=1, opset=7
    ),
    "several outputs, ages by Softmax": Kind(after=with_ages),
    "Identity before constants": Kind(after=shared_constants),
    "nodes out of order": Kind(after=out_of_order),
    "fp16 with float input": Kind(after=halves, small=False),
    "constants among the inputs, opset 8": Kind(after=constants_as_inputs, opset=8),
    "constants among the inputs, opset 11": Kind(after=constants_as_inputs, opset=11),
    "Constant with value_float": mixing(
        helper.make_node("Constant", [], ["half"], value_float=0.5), node("Mul", "map half", "mixed")
    ),
    "Shape, Gather, Slice": Kind(flat=COMPUTED, constants=NUMBERS),
    "Shape, Gather, Slice, batch of 1": Kind(flat=COMPUTED, constants=NUMBERS, batch=1),
    "Split, Sum": mixing(
        node("Split", "map", "a b", axis=1, num_outputs=2), node("Sum", "a b", "c"),
        node("Concat", "c a", "mixed", axis=1),
    ),
    "Softmax": mixing(node("Softmax", "map", "soft", axis=1), node("Add", "map soft", "mixed")),
    "HardSigmoid": mixing(node("HardSigmoid", "map", "hard"), node("Add", "map hard", "mixed")),
    "HardSwish": mixing(node("HardSwish", "map", "mixed")),
    "InstanceNormalization": mixing(
        node("InstanceNormalization", "map gain shift", "normal"), node("Add", "map normal", "mixed"),
        gain=weights(CHANNELS), shift=weights(CHANNELS),
    ),
    "GroupNormalization": mixing(
        node("GroupNormalization", "map gain shift", "normal", num_groups=2), node("Add", "map normal", "mixed"),
        gain=weights(2), shift=weights(2),
    ),
    "LayerNormalization": Kind(
        head=[node("LayerNormalization", "flat gain", "normal"), node("MatMul", "normal projection", "n"),
              node("MatMul", "flat projection", "f"), node("Add", "n f", "embedding")],
        constants={"gain": weights(CHANNELS)},
    ),
    "Resize": mixing(
        node("Resize", "map - twice", "mixed", mode="linear"), twice=np.array([1, 1, 1.5, 1.5], np.float32)
    ),
    "Resize with antialias": replace(
        mixing(node("Resize", "map - less", "mixed", antialias=1, mode="linear"), less=np.array([1, 1, 0.5, 0.5], "f")),
        gradients=False,
    ),
    "grouped convolution": mixing(
        node("Conv", "map grouped", "mixed", group=4), grouped=np.abs(weights(CHANNELS, 2, 1, 1))
    ),
    "transposed convolution": mixing(
        node("ConvTranspose", "map turned", "mixed", strides=[2, 2]), turned=np.abs(weights(CHANNELS, CHANNELS, 2, 2))
    ),
    "ceil_mode": mixing(node("MaxPool", "map", "mixed", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    "If on a constant": Kind(after=branching("If")),
    "If on the input": Kind(after=branching("If on the input"), gradients=False, small=False),
    "Loop": Kind(after=branching("Loop"), gradients=False, small=False),
    "function": Kind(after=function),
    "uint8 input": Kind(input=TensorProto.UINT8),
    "uint8 input, batch of 1": Kind(input=TensorProto.UINT8, batch=1),
    "float16 input": Kind(input=TensorProto.FLOAT16, after=half_input, small=False),
    "float16 input, float32 inside": Kind(input=TensorProto.FLOAT16),
    "embedding (N, D, 1, 1)": Kind(
        flat=[],
        head=[node("Conv", "pooled last", "embedding")],
        constants={"last": BASE["projection"].T.reshape(SIZE, CHANNELS, 1, 1).copy()},
        shape=("batch", SIZE, 1, 1),
    ),
    "embedding (1, D, 1, 1)": Kind(
        flat=[],
        head=[node("Conv", "pooled last", "embedding")],
        constants={"last": BASE["projection"].T.reshape(SIZE, CHANNELS, 1, 1).copy()},
        shape=(1, SIZE, 1, 1),
        batch=1,
    ),
    "embedding (D,) by Squeeze": Kind(
        head=[node("MatMul", "flat projection", "row"), node("Squeeze", "row zero", "embedding")],
        constants={"zero": np.array([0])}, batch=1, shape=(SIZE,),
    ),
    "embedding (D,) by Reshape": Kind(
        head=[node("MatMul", "flat projection", "row"), node("Reshape", "row all", "embedding")],
        constants={"all": np.array([-1])}, batch=1, shape=(SIZE,),
    ),
    "embedding (D,) by Gather": Kind(
        head=[node("MatMul", "flat projection", "row"), node("Gather", "row first", "embedding", axis=0)],
        constants={"first": np.array(0)}, batch=1, shape=(SIZE,),
    ),
}  # fmt: skip
