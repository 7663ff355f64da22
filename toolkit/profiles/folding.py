"""The end of a hardened graph: one embedding and one attack score from all variants of each image."""

from __future__ import annotations

import numpy as np
import onnx

from toolkit.defenses.base import GraphBuilder
from toolkit.errors import InputError
from toolkit.profiles.detector import ATTACK_SCORE
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.onnx_file import readers, rename_reads
from toolkit.verifiers.variants import onnx_attack_scores, onnx_fold
from toolkit.verifiers.votes import add_vote

_FLOAT = onnx.TensorProto.FLOAT


def fold_variants(
    graph: onnx.GraphProto, builder: GraphBuilder, manifest: Manifest, profile: Profile, defended: str
) -> None:
    """Add the nodes after a verifier that compute its outputs from those of all variants.

    The embedding is folded (`verifiers.variants.fold`). A vote adds outputs of its own (`verifiers.votes`). Other
    outputs are those of the defended image itself, and of the first draw.

    Args:
        graph: the verifier, which reads the variants from `defended`. Its output of attack scores is added.
        builder: gets the nodes.
        manifest: the verifier's.
        profile: the profile.
        defended: the name of the variants of all images.

    Raises:
        InputError: an output has no value for each image.
    """
    output = manifest.output
    entry = next(value for value in graph.output if value.name == output.name)
    others = [value for value in graph.output if value.name != output.name and _depends(graph, value.name, defended)]
    variants = _renamed(graph, output.name, f"{builder.prefix}variants")
    # The stored shapes use the input's batch symbol, but the verifier's nodes now have a larger batch.
    del graph.value_info[:]
    kind = entry.type.tensor_type.elem_type
    if kind != _FLOAT:
        variants = builder.add("Cast", [variants], to=_FLOAT)
    vote = profile.voting
    if vote is not None:
        draws = variants
        if profile.squeezers:
            each = builder.constant(np.array([1 + len(profile.squeezers), -1, output.size]))
            draws = builder.add("Gather", [builder.add("Reshape", [variants, each]), builder.integer(0)], axis=0)
        add_vote(graph, builder, draws, vote, manifest.decision.metric, output.size, unit=output.normalize)
    folded = onnx_fold(builder, variants, 1 + len(profile.squeezers), profile.draws, output.size)
    shaped = folded[0]
    shape = _shape(entry, output.size)
    if shape is not None:
        shaped = builder.add("Reshape", [shaped, builder.constant(np.array(shape, np.int64))])
    if kind == _FLOAT:
        builder.add("Identity", [shaped], output.name)
    else:
        builder.add("Cast", [shaped], output.name, to=kind)
    for i, other in enumerate(others):
        _keep_first(graph, builder, other, manifest, f"{builder.prefix}variants_of_{i}")
    if profile.detector is None:
        return
    onnx_attack_scores(builder, manifest.decision.metric, folded, ATTACK_SCORE, normalize=output.normalize)
    score = onnx.helper.make_tensor_value_info(ATTACK_SCORE, _FLOAT, [None])
    batch = next(v for v in graph.input if v.name == manifest.input.name).type.tensor_type.shape.dim[0]
    score.type.tensor_type.shape.dim[0].CopyFrom(batch)
    graph.output.append(score)


def _depends(graph: onnx.GraphProto, name: str, source: str) -> bool:
    """Whether a value depends on another one."""
    known = {source}
    waiting = [source]
    while waiting:
        for node in readers(list(graph.node), waiting.pop()):
            new = set(node.output) - known
            known |= new
            waiting += new
    return name in known


def _renamed(graph: onnx.GraphProto, old: str, new: str) -> str:
    """Give the value of an output another name, so that the output's name is free. Return the new name."""
    rename_reads(list(graph.node), old, new)
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == old:
                # A node without a name is identified by its output. This output now belongs to the profile.
                node.name = node.name or name
                node.output[i] = new
    return new


def _keep_first(
    graph: onnx.GraphProto, builder: GraphBuilder, value: onnx.ValueInfoProto, manifest: Manifest, inner: str
) -> None:
    """Cut an output to the rows of the defended images: the first draw of the first variant comes first."""
    if value.type.tensor_type.HasField("shape") and not value.type.tensor_type.shape.dim:
        raise InputError(
            f"{manifest.model}: output {value.name!r} has no value for each image, so that a profile with variants "
            "cannot be put in front; export it without this output"
        )
    _renamed(graph, value.name, inner)
    zero = builder.constant(np.array([0], np.int64))
    shape = builder.add("Shape", [manifest.input.name])
    count = builder.add("Slice", [shape, zero, builder.constant(np.array([1], np.int64)), zero])
    builder.add("Slice", [inner, zero, count, zero], value.name)


def _shape(entry: onnx.ValueInfoProto, size: int) -> list[int] | None:
    """The shape of an embedding that is not (N, size), with -1 for the batch; None for that, or if it is not known."""
    dims = [int(d.dim_value) for d in entry.type.tensor_type.shape.dim]
    if len(dims) in (0, 2):
        return None
    if len(dims) == 1:
        return [size]
    # A side that the file leaves open has the size 1, unless it is the embedding's own.
    rest = [d or 1 for d in dims[1:]]
    return [-1, *rest] if size in rest else [-1, size, *rest[1:]]
