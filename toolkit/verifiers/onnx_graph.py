"""ONNX files as differentiable TensorFlow functions, for gradients without the original framework's model.

`onnx_arrays` and `onnx_layers` translate the operators that exported face verifiers use. Other operators are rejected
by name. Only the part of the graph that computes the embedding is translated. Nodes may be in any order.
`benchmarks/operators.py` runs ONNX's own test cases of every operator.

Everything that is float16 in the file is computed in float32: gradients in float16 would vanish. An input of bytes is
rounded, and its gradient is that of the identity (straight through).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from toolkit.errors import InputError, refusing
from toolkit.quiet import import_tensorflow
from toolkit.verifiers.onnx_arrays import arrays
from toolkit.verifiers.onnx_file import STANDARD, attributes_of, inputs_of, opset_of, parse_onnx, read_onnx
from toolkit.verifiers.onnx_layers import layers
from toolkit.verifiers.onnx_values import MISSING, Operator, Value, widened

# They depend on the version of the operators, or on the number of outputs.
_TOLD = {"Softmax", "LogSoftmax", "Split"}
# They move values and do not compute with them, so that they do to bytes what they do to floating-point numbers.
_MOVING = {
    "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
_BYTES = onnx.TensorProto.UINT8


def load_onnx(path: Path, output: str | None = None) -> Callable[[Any], Any]:
    """Read an ONNX verifier.

    Args:
        path: an ONNX file with one input.
        output: the name of the embedding's output. Default: the first.

    Returns:
        A function from the input tensor to the output. It can be called inside a `tf.function`.

    Raises:
        InputError: the file is not an ONNX file, has several inputs, or an operator is not supported.
        UnavailableError: TensorFlow is not installed.
    """
    return translate(parse_onnx(read_onnx(path).content, path), path, output)


def translate(proto: onnx.ModelProto, path: Path, output: str | None = None) -> Callable[[Any], Any]:
    """Translate a parsed model as `load_onnx` does.

    Raises:
        InputError, UnavailableError: as in `load_onnx`.
    """
    graph, known, opset = proto.graph, operators(), opset_of(proto)
    with refusing(f"{path}: its constants cannot be read"):
        constants = {t.name: Value(widened(onnx.numpy_helper.to_array(t))) for t in graph.initializer}
    entries = inputs_of(graph)
    inputs = [value.name for value in entries]
    if len(inputs) != 1:
        raise InputError(f"{path}: has {len(inputs)} inputs ({', '.join(inputs)}); a verifier must have one")
    if not graph.output:
        raise InputError(f"{path}: has no output; a verifier must have one")
    wanted = output or graph.output[0].name
    nodes = _needed(graph, wanted, {*constants, *inputs, ""}, path)
    for node in nodes:
        if node.domain not in STANDARD or node.op_type not in known:
            raise InputError(
                f"{path}: node {node.name!r}: the operator {node.op_type} has no gradient here; "
                "name a checkpoint in the manifest"
            )
    of_bytes = entries[0].type.tensor_type.elem_type == _BYTES
    if of_bytes:
        _check_bytes(nodes, inputs[0], path)

    def run(x: Any) -> Any:
        entry = _rounded(x) if of_bytes else x
        values: dict[str, Value] = {**constants, inputs[0]: Value(entry), "": MISSING}
        for node in nodes:
            with refusing(f"{path}: node {node.name!r} ({node.op_type}) cannot be run"):
                attributes = attributes_of(node)
                if node.op_type in _TOLD:
                    attributes |= {"opset": opset, "outputs": len(node.output)}
                found = _run(known[node.op_type], [values[name] for name in node.input], attributes)
                values.update(zip(node.output, found, strict=False))
        if wanted not in values:
            raise InputError(f"{path}: no node computes the output {wanted!r}")
        return values[wanted].first()

    return run


def _rounded(x: Any) -> Any:
    """Round to bytes. The gradient is that of the identity."""
    tf = import_tensorflow()
    return tf.grad_pass_through(lambda values: tf.clip_by_value(tf.round(values), 0.0, 255.0))(x)


def _check_bytes(nodes: list[onnx.NodeProto], name: str, path: Path) -> None:
    """Check that nodes do nothing with bytes but move them and cast them to floating-point numbers.

    Raises:
        InputError: a node computes with bytes, which floating-point numbers cannot stand for.
    """
    of_bytes = {name}
    real = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    for node in nodes:
        if not of_bytes.intersection(node.input) or node.op_type == "Shape":
            continue
        if node.op_type in _MOVING:
            of_bytes.update(node.output)
        elif node.op_type != "Cast" or not any(a.name == "to" and a.i in real for a in node.attribute):
            raise InputError(
                f"{path}: node {node.name!r} ({node.op_type}) computes with bytes, and has no gradient here"
            )


def operators() -> dict[str, Operator]:
    """The operators that are translated, by name."""
    return {**arrays(), **layers()}


def _run(operator: Operator, values: list[Value], attributes: dict[str, Any]) -> list[Value]:
    """Run an operator. What depends on constants alone is a constant, also where a graph is traced."""
    tf = import_tensorflow()
    constant = bool(values) and all(value.constant for value in values)
    if not constant:
        result = operator(values, attributes)
        return result if isinstance(result, list) else [result]
    with tf.init_scope():
        result = operator(values, attributes)
        found = result if isinstance(result, list) else [result]
        return [Value(np.asarray(value.first())) for value in found]


def _needed(graph: onnx.GraphProto, output: str, known: set[str], path: Path) -> list[onnx.NodeProto]:
    """The nodes that an output depends on, each after those that it reads.

    Raises:
        InputError: nodes read each other in a circle.
    """
    maker = {name: node for node in graph.node for name in node.output if name}
    ordered: list[onnx.NodeProto] = []
    done, open_ = set(known), set[str]()
    waiting = [output]
    while waiting:
        name = waiting[-1]
        node = maker.get(name)
        if name in done or node is None:
            waiting.pop()
            continue
        missing = [n for n in node.input if n not in done and n in maker]
        if missing and name in open_:
            raise InputError(f"{path}: node {node.name!r} ({node.op_type}) depends on itself")
        open_.add(name)
        if missing:
            waiting += missing
            continue
        waiting.pop()
        ordered.append(node)
        done |= set(node.output)
    return ordered
