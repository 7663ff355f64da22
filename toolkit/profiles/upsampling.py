"""Fewer pixels in a hardened graph: an upsampling that repeats pixels moves back, and meets the average that undoes it.

The noise of a vote is added to averages of blocks, which are then repeated. What each draw costs is the size of its
crop, and a verifier that begins with averages of the same blocks does not need the repeated pixels at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from toolkit.verifiers.onnx_file import attributes_of, readers

# Arithmetic with a constant for each channel, or for all pixels.
_PIXELWISE = {"Sub", "Div"}
# What changes no pixel, and the order of axes that it must lead back to.
_MOVES, _UNMOVED = {"Identity", "Transpose"}, [0, 1, 2, 3]


def sink_upsampling(nodes: list[onnx.NodeProto]) -> None:
    """Let arithmetic with constants come before an upsampling that repeats pixels: it has fewer of them to do.

    Args:
        nodes: a chain's nodes in order, which are changed.
    """
    for i in range(len(nodes) - 1):
        first, second = nodes[i : i + 2]
        by_channel = second.op_type == "Gather" and attributes_of(second).get("axis") == 1
        if not _repeats(first) or not (second.op_type in _PIXELWISE or by_channel):
            continue
        if second.input[0] == first.output[0] and len(readers(nodes, first.output[0])) == 1:
            before, middle, after = first.input[0], first.output[0], second.output[0]
            second.input[0], second.output[0] = before, middle
            first.input[0], first.output[0] = middle, after
            nodes[i], nodes[i + 1] = second, first


def meet_averages(graph: onnx.GraphProto, defended: str) -> None:
    """Remove an upsampling that ends a defense, if the verifier begins with the average that undoes it.

    Both nodes become identities, so that the names of all values stay. An average of equal numbers is that number, up
    to its rounding.

    Args:
        graph: the hardened graph in NCHW or NHWC, which is changed.
        defended: the name of what the defense gives to the verifier.
    """
    nodes = list(graph.node)
    made = {name: node for node in nodes for name in node.output}
    upsampling = made[defended]
    while not _repeats(upsampling):
        if upsampling.op_type not in _MOVES or upsampling.input[0] not in made:
            return
        upsampling = made[upsampling.input[0]]
    outputs = {value.name for value in graph.output}
    order, passed = _UNMOVED, [upsampling.output[0]]
    while True:
        reading = readers(nodes, passed[-1])
        if len(reading) != 1 or passed[-1] in outputs:
            return
        (node,) = reading
        if node.op_type == "AveragePool":
            break
        if node.op_type not in _MOVES:
            return
        if node.op_type == "Transpose":
            order = [order[axis] for axis in attributes_of(node)["perm"]]
        passed.append(node.output[0])
    factors = _constant(graph, upsampling.input[2])
    if order != _UNMOVED or factors is None or not _undoes(node, factors):
        return
    for unneeded in (upsampling, node):
        unneeded.op_type = "Identity"
        del unneeded.input[1:], unneeded.attribute[:]
    # What the file says of the shapes between the two no longer holds.
    kept = [value for value in graph.value_info if value.name not in passed]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _repeats(node: onnx.NodeProto) -> bool:
    """Whether a node repeats each pixel a whole number of times. Only defenses are asked, whose factors are whole."""
    return node.op_type == "Resize" and attributes_of(node).get("mode") == b"nearest"


def _constant(graph: onnx.GraphProto, name: str) -> Sequence[float] | None:
    for tensor in graph.initializer:
        if tensor.name == name:
            return list(onnx.numpy_helper.to_array(tensor))
    return None


def _undoes(pooling: onnx.NodeProto, factors: Sequence[float]) -> bool:
    """Whether an average of NCHW images is over just the blocks that an upsampling by these factors made."""
    found = attributes_of(pooling)
    sides = found["kernel_shape"]
    return (
        list(factors) == [1, 1, *sides]
        and found.get("strides") == sides
        and found.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and not any(found.get("pads", ()))
        and not found.get("ceil_mode", 0)
        and all(step == 1 for step in found.get("dilations", ()))
    )
