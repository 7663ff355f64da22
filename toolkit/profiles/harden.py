"""The hardened verifier: a profile's defenses put before the verifier, in one ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx

from toolkit.defenses.base import GraphBuilder
from toolkit.errors import InputError
from toolkit.profiles.profile import Profile
from toolkit.verifiers.edge import unit_affine
from toolkit.verifiers.manifest import Input, Manifest

_PREFIX = "sixpixels/"
# Pad takes its amounts as an input from opset 11 on.
_OLDEST_OPSET = 11


def harden(model: bytes, manifest: Manifest, profile: Profile) -> bytes:
    """Fuse `profile` in front of a serialized verifier.

    The result takes the same input (name, shape, layout, range) and gives the same outputs, so that it drops in
    place of the original. The empty profile gives `model` back unchanged.

    Raises:
        InputError: the model is not an ONNX file, its opset is too old, or its manifest standardizes each image
            by itself before the graph, so that the graph cannot know the pixels.
    """
    if not profile.defenses:
        return model
    where, spec = manifest.model, manifest.input
    if spec.standardization == "per-image":
        raise InputError(
            f"{where}: cannot be hardened, because its input is standardized image by image before the graph, "
            "which loses the pixel values; export the model with the standardization inside"
        )
    try:
        graph = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf raises its own family
        raise InputError(f"{where}: is not an ONNX file") from error
    opset = next((o.version for o in graph.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise InputError(f"{where}: opset {opset} is too old to be hardened; convert it to {_OLDEST_OPSET} or later")

    defended_input = f"{_PREFIX}defended"
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            if name == spec.name:
                node.input[i] = defended_input
    builder = _defended(spec, profile, defended_input, opset)
    original = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*builder.nodes, *original])
    graph.graph.initializer.extend(builder.initializers)
    return bytes(graph.SerializeToString())


def _defended(spec: Input, profile: Profile, output: str, opset: int) -> GraphBuilder:
    """Nodes from the verifier's input to `output`: to (N, 3, H, W) RGB in [0, 1], through the defenses, and back."""
    builder = GraphBuilder(_PREFIX, opset)
    scale, offset = (a.reshape(1, 3, 1, 1) for a in unit_affine(spec))
    affine = bool(np.any(scale != 1) or np.any(offset != 0))
    value = spec.name
    if spec.layout == "NHWC":
        value = builder.add("Transpose", [value], perm=[0, 3, 1, 2])
    if affine:
        value = builder.add("Mul", [value, builder.constant(scale)])
        value = builder.add("Add", [value, builder.constant(offset)])
    if spec.channels == "BGR":
        value = _reverse_channels(builder, value)
    for defense in profile.defenses:
        value = defense.onnx(builder, value)
    if spec.channels == "BGR":
        value = _reverse_channels(builder, value)
    if affine:
        value = builder.add("Sub", [value, builder.constant(offset)])
        value = builder.add("Div", [value, builder.constant(scale)])
    if spec.layout == "NHWC":
        builder.add("Transpose", [value], output, perm=[0, 2, 3, 1])
    else:
        builder.add("Identity", [value], output)
    return builder


def _reverse_channels(builder: GraphBuilder, value: str) -> str:
    return builder.add("Gather", [value, builder.constant(np.array([2, 1, 0], np.int64))], axis=1)
