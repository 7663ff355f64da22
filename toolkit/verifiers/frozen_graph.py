"""TensorFlow 1 frozen graphs, the format of the published FaceNet models, rewritten so that they have gradients.

Such a graph switches between training and inference with the input `phase_train`. TensorFlow cannot differentiate its
Switch and Merge nodes. They are therefore replaced by the branch that inference takes, and all other nodes are removed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.errors import InputError, refusing

INPUT, OUTPUT, PHASE = "input", "embeddings", "phase_train"
_LARGEST_GRAPH = 1 << 30
_BRANCHING = ("Switch", "Merge")
# The operations that an embedding network needs. All others are rejected, because a graph could read and write files.
ALLOWED_OPERATIONS = frozenset({
    "Abs", "Add", "AddN", "AddV2", "AvgPool", "BiasAdd", "Cast", "ClipByValue", "ConcatV2", "Concat", "Const",
    "Conv2D", "DepthwiseConv2dNative", "Div", "Elu", "ExpandDims", "FusedBatchNorm", "FusedBatchNormV2",
    "FusedBatchNormV3", "Identity", "L2Loss", "LRN", "LeakyRelu", "MatMul", "Max", "MaxPool", "Maximum", "Mean",
    "Min", "Minimum", "Mul", "Neg", "Pack", "Pad", "PadV2", "Placeholder", "PlaceholderWithDefault", "Pow",
    "RealDiv", "Relu", "Relu6", "Reshape", "Rsqrt", "Selu", "Shape", "Sigmoid", "Slice", "Softmax", "Softplus",
    "Split", "SplitV", "Sqrt", "Square", "SquaredDifference", "Squeeze", "StopGradient", "StridedSlice", "Sub",
    "Sum", "Tanh", "Tile", "Transpose",
})  # fmt: skip


def read_frozen_graph(path: Path) -> Any:
    """Read a `.pb` file with the nodes `input` and `embeddings`, and optionally `phase_train`.

    Returns:
        A GraphDef from `input` to `embeddings` in inference, without Switch, Merge and control inputs.

    Raises:
        InputError: the file is not a graph, lacks a node, or has operations that an embedding network does not need.
    """
    from tensorflow.core.framework import graph_pb2

    with refusing(f"{path}: is not a frozen graph, or is damaged"):
        if not path.is_file() or path.stat().st_size > _LARGEST_GRAPH:
            raise InputError(f"{path}: is no file, or is larger than {_LARGEST_GRAPH >> 30} GB; this is not a verifier")
        return _inference(graph_pb2.GraphDef.FromString(path.read_bytes()), path)


def _inference(graph: Any, path: Path) -> Any:
    nodes = {node.name: node for node in graph.node}
    for name in (INPUT, OUTPUT):
        if name not in nodes:
            raise InputError(f"{path}: has no node {name!r}; a frozen FaceNet has {INPUT}:0 and {OUTPUT}:0")

    inference = type(graph)()
    for node in _inference_nodes(nodes, path):
        inference.node.append(node)
    operations = {node.op for node in inference.node if node.name != INPUT}
    refused = sorted(operations - ALLOWED_OPERATIONS)
    if refused:
        raise InputError(f"{path}: has operations that are not allowed in a verifier: {', '.join(refused)}")
    inference.versions.CopyFrom(graph.versions)
    return inference


def _split(reference: str) -> tuple[str, int]:
    name, _, output = reference.partition(":")
    return name, int(output or 0)


def _inference_nodes(nodes: dict[str, Any], path: Path) -> list[Any]:
    """Return the nodes that `embeddings` depends on when `phase_train` is false.

    Raises:
        InputError: a reference leads nowhere, or a branch cannot be resolved.
    """
    kept: dict[str, Any] = {}
    waiting, liveness = [OUTPUT], _Liveness(nodes, path)
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        if name not in nodes:
            raise InputError(f"{path}: a node refers to {name!r}, which does not exist")
        node = type(nodes[name])()
        node.CopyFrom(nodes[name])
        # Control inputs order side effects such as moving averages. Inference has no side effects.
        inputs = [] if name == INPUT else [i for i in node.input if not i.startswith("^")]
        if node.op in _BRANCHING:
            inputs = inputs[:1] if node.op == "Switch" else [i for i in inputs if not liveness.is_dead(i)]
            if len(inputs) != 1:
                raise InputError(f"{path}: {name!r} must have one live input in inference, not {len(inputs)}")
            kind = node.attr["T"].type
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = kind
        del node.input[:]
        for reference in inputs:
            source, _ = _split(reference)
            # Both outputs of a Switch become the only output of an Identity.
            node.input.append(source if source in nodes and nodes[source].op in _BRANCHING else reference)
            waiting.append(source)
        kept[name] = node
    return list(kept.values())


class _Liveness:
    """Finds the tensors that are never computed when `phase_train` is false."""

    def __init__(self, nodes: dict[str, Any], path: Path) -> None:
        self._nodes, self._path = nodes, path
        self._dead: dict[str, bool] = {}

    def is_dead(self, reference: str) -> bool:
        """Return whether a tensor is never computed.

        Tensors after the untaken side of a Switch are dead. A Merge is dead only if all its inputs are dead.
        """
        name, output = _split(reference.lstrip("^"))
        node = self._nodes.get(name)
        if node is None:
            raise InputError(f"{self._path}: a node refers to {name!r}, which does not exist")
        if node.op == "Switch" and output == int(not self._predicate(node.input[1])):
            return True
        if name not in self._dead:
            self._dead[name] = False  # ends the recursion in a graph with loops; such graphs are rejected later
            states = [self.is_dead(i) for i in node.input] if name != INPUT else []
            self._dead[name] = bool(states) and (all(states) if node.op == "Merge" else any(states))
        return self._dead[name]

    def _predicate(self, reference: str) -> bool:
        """Return the value of a Switch's predicate in inference, where `phase_train` is false."""
        name, _ = _split(reference)
        node = self._nodes.get(name)
        if name == PHASE:
            return False
        if node is not None and node.op in {"Identity", "Switch", "LogicalNot"}:
            value = self._predicate(node.input[0])
            return not value if node.op == "LogicalNot" else value
        if node is not None and node.op == "Const":
            return bool(node.attr["value"].tensor.bool_val[0])
        raise InputError(f"{self._path}: a branch depends on {name!r}; branches may depend on {PHASE} only")
