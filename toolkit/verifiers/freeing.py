"""Freeing of frozen batches: a graph that was exported for 1 or 2 images takes any number."""

from __future__ import annotations

import numpy as np
import onnx

from toolkit.errors import InputError

_SYMBOL = "batch"


def free_batch(model: onnx.ModelProto, name: str, batch: int) -> None:
    """Rewrite a folded graph, whose shapes are all known, so that its input's first dimension may have any size.

    Shapes in a Reshape get their first entry from the data. Nodes that drop the axis of a batch of one, because it had
    the size 1, keep it. Whether the result computes the same for every image must be seen by running it.

    Args:
        model: the model, whose graph is changed.
        name: the input.
        batch: the size of its first dimension.

    Raises:
        InputError: a node's shape is not known.
    """
    graph, shapes = model.graph, _shapes(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    moving = {name}
    made: list[onnx.TensorProto] = []
    for node in graph.node:
        if not moving.intersection(node.input):
            continue
        moving.update(node.output)
        if node.op_type == "Reshape":
            made.append(_reshape(node, shapes, batch))
        elif batch == 1 and shapes.get(node.input[0], [0])[:1] == [1]:
            made += _squeeze(node, shapes, constants) if node.op_type == "Squeeze" else []
            if node.op_type == "Gather" and _takes_first(node, constants):
                _become_identity(node)
    graph.initializer.extend(made)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        shape = value.type.tensor_type.shape
        if value.name in moving and shape.dim and shape.dim[0].dim_value == batch:
            shape.dim[0].dim_param = _SYMBOL
        elif value.name in moving:
            # An embedding (D,) becomes (N, D) or (N * D,).
            value.type.tensor_type.ClearField("shape")


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shapes of values that are known as a whole."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: dict[str, list[int]] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            found[value.name] = [int(d.dim_value) for d in dims]
    return found


def _reshape(node: onnx.NodeProto, shapes: dict[str, list[int]], batch: int) -> onnx.TensorProto:
    after = shapes.get(node.output[0])
    if not after or after[0] % batch:
        raise InputError(f"the shape behind node {node.name!r} (Reshape) is not known")
    node.input[1] = f"{node.output[0]}/shape_for_any_batch"
    del node.attribute[:]
    return onnx.numpy_helper.from_array(np.array([-1, *after[1:]], np.int64), node.input[1])


def _squeeze(
    node: onnx.NodeProto, shapes: dict[str, list[int]], constants: dict[str, onnx.TensorProto]
) -> list[onnx.TensorProto]:
    """Leave the batch's axis out of the axes that a Squeeze drops. Return a constant that it needs."""
    before = shapes[node.input[0]]
    given = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if len(node.input) > 1 and node.input[1] in constants:
        given = [int(axis) for axis in onnx.numpy_helper.to_array(constants[node.input[1]]).ravel()]
    axes = [axis % len(before) for axis in given] if given else [i for i, size in enumerate(before) if size == 1]
    kept = [axis for axis in axes if axis]
    if not kept:
        _become_identity(node)
        return []
    if len(node.input) < 2 and any(a.name == "axes" for a in node.attribute):
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("axes", kept))
        return []
    name = f"{node.output[0]}/axes_for_any_batch"
    inputs = [node.input[0], name]
    del node.input[:]
    node.input.extend(inputs)
    return [onnx.numpy_helper.from_array(np.array(kept, np.int64), name)]


def _takes_first(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether a Gather takes the only image of a batch, as x[0] does."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    index = constants.get(node.input[1])
    return axis == 0 and index is not None and not index.dims and int(onnx.numpy_helper.to_array(index)) in (0, -1)


def _become_identity(node: onnx.NodeProto) -> None:
    node.op_type = "Identity"
    del node.attribute[:]
    del node.input[1:]
