"""The hardened verifier: a profile and the verifier in one ONNX graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from toolkit import __version__
from toolkit.defenses.base import GraphBuilder, any_range, oldest_opset
from toolkit.errors import InputError
from toolkit.profiles.detector import ATTACK_SCORE
from toolkit.profiles.folding import fold_variants
from toolkit.profiles.profile import Profile, find_profile
from toolkit.profiles.sizes import check_sizes
from toolkit.profiles.upsampling import meet_averages, sink_upsampling
from toolkit.tables import edit_toml
from toolkit.verifiers.edge import KIND_OF, unit_affine
from toolkit.verifiers.hardened import DetectorOutput
from toolkit.verifiers.manifest import Input, Manifest, find_manifest
from toolkit.verifiers.normalize import Wanted, batch_of, normalized
from toolkit.verifiers.onnx_file import (
    OLDEST_FORMAT,
    STANDARD,
    graphs_of,
    inputs_of,
    opset_of,
    parse_onnx,
    readers,
    rename_reads,
)
from toolkit.verifiers.placing import WrittenVerifier, check_output, write_verifier
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, open_model, try_model
from toolkit.verifiers.trial import is_shipped

# The prefix of the names of a profile's nodes. No other node has it.
PREFIX = "sixpixels/"
# Since opset 11, Pad takes its amounts as an input.
_OLDEST_OPSET = 11
# Since opset 13, ReduceSum takes its axes as an input. Folding and drawing entropy use it.
_FOLDING_OPSET = 13
# ONNX Runtime has no random numbers in newer operator sets (1.31 and 1.32: "Could not find an implementation for
# RandomUniform(22)").
_NEWEST_OPSET_OF_RANDOM = 21
_KNOWN_DOMAINS = (*STANDARD, "ai.onnx.ml", "com.microsoft")
_FLOAT, _BYTES = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8


def harden_verifier(model: str | Path | Manifest, profile: str | Path | Profile, output: str | Path) -> WrittenVerifier:
    """Put a profile in front of a verifier. Write one ONNX file that replaces the original, with a manifest beside it.

    Args:
        model: a shipped model's name, an .onnx file with a manifest beside it, a `model.toml`, or a manifest.
        profile: a shipped profile's name, a .toml file, or a profile.
        output: the .onnx file to write.

    Raises:
        UsageError: the output would overwrite the verifier, or does not end in .onnx.
        InputError: the verifier cannot be hardened, the file cannot be written, or ONNX Runtime cannot run it. Nothing
            is written then.
    """
    return write_hardened(find_manifest(model), find_profile(profile), Path(output))


def write_hardened(manifest: Manifest, profile: Profile, output: Path) -> WrittenVerifier:
    """Write the hardened verifier as one ONNX file, with a manifest beside it. The file does not need this project.

    The metadata of the file contain the new manifest, the hashes of the verifier and of the profile, and the profile's
    text. The threshold stays the same, unless the profile's vote has its own. Calibrate it again if the profile changes
    the clean error rates.

    Raises:
        InputError: the verifier cannot be hardened or run, or the output cannot be written.
        UsageError: the output would overwrite the verifier, or does not end in .onnx.
    """
    import tomlkit

    check_output(output, manifest, "hardened")
    model = open_model(manifest)
    proto = parse_onnx(harden(model.content, manifest, profile), manifest.model)
    document = edit_toml(manifest.path)
    document["name"] = f"{manifest.name}+{profile.name}"
    document["model"]["file"] = output.name
    document["model"].pop("sha256", None)
    document["model"]["provenance"] = f"{manifest.provenance}; hardened by sixpixels with profile {profile.name}"
    # The checkpoint belongs to the bare verifier.
    document.pop("checkpoint", None)
    described = hardened_manifest(manifest, profile)
    if described.output.lipschitz is None:
        document["output"].pop("lipschitz", None)
    vote, detector = described.vote, described.detector
    if vote is not None:
        document["vote"] = {"draws": vote.draws, "sigma": vote.sigma, "confidence": vote.confidence}
        document["decision"]["threshold"] = vote.threshold
    if detector is not None:
        document["detector"] = {
            "output": detector.name,
            "threshold": detector.threshold,
            "false_alarm": detector.false_alarm,
        }
    for key, text in {
        "sixpixels.manifest": tomlkit.dumps(document),
        "sixpixels.verifier_sha256": model.sha256,
        "sixpixels.profile_sha256": profile.sha256,
        "sixpixels.profile": profile.text,
        "sixpixels.version": __version__,
    }.items():
        for old in [p for p in proto.metadata_props if p.key == key]:
            proto.metadata_props.remove(old)
        proto.metadata_props.add(key=key, value=text)
    return write_verifier(output, proto.SerializeToString(), document)


def hardened_manifest(manifest: Manifest, profile: Profile) -> Manifest:
    """Return the manifest of a hardened verifier: the verifier's own manifest with the profile's detector or vote.

    A Lipschitz bound is that of the bare verifier. Nobody has bounded the profile.
    """
    if not profile.empty:
        manifest = replace(manifest, output=replace(manifest.output, lipschitz=None))
    if profile.vote is not None:
        manifest = replace(manifest, vote=profile.voting)
    if profile.detector is None:
        return manifest
    found = profile.detector
    return replace(manifest, detector=DetectorOutput(ATTACK_SCORE, found.threshold, found.false_alarm))


def deploy(
    model: bytes, manifest: Manifest, profile: Profile, execution: Execution | None = None, seed: int | None = None
) -> RuntimeVerifier:
    """Load the hardened verifier in ONNX Runtime. See `RuntimeVerifier` for `execution` and `seed`.

    Raises:
        InputError: the verifier cannot be hardened or loaded.
        UnavailableError: the requested provider does not exist here, or the required provider is not used.
    """
    hardened, described = harden(model, manifest, profile), hardened_manifest(manifest, profile)
    if not is_shipped(model):
        try_model(hardened, described)
    return RuntimeVerifier(described, hardened, execution, seed)


def harden(model: bytes, manifest: Manifest, profile: Profile) -> bytes:
    """Fuse `profile` with a serialized verifier.

    The result has the same input (name, type, shape, layout, range) and the same outputs, so that it can replace the
    original. A detector adds the output `attack_score` (N,), and a vote those of `verifiers.votes`. The empty profile
    returns `model` unchanged. All draws and squeezed forms of all images go through the verifier in one batch. Other
    outputs than the embedding are those of the first draw. A model whose operator set is too old, whose nodes are out
    of order, or whose batch is too small for that is normalized before (`verifiers.normalize`).

    Raises:
        InputError: the model is not a usable ONNX file, cannot be normalized, or a defense does not fit its crops; or
            its input is standardized per image before the graph, so that the graph cannot recover the pixels.
    """
    if profile.empty:
        return model
    where, spec = manifest.model, manifest.input
    original = checked_graph(model, manifest)
    if is_hardened(original.graph):
        raise InputError(f"{where}: is hardened already; give the original verifier")
    try_model(model, manifest)
    if spec.standardization == "per-image":
        raise InputError(
            f"{where}: cannot be hardened, because each image is standardized before the graph, which loses the pixel "
            "values; export the model with the standardization inside the graph"
        )
    check_sizes((*profile.defenses, *profile.squeezers), spec, f"profile {profile.name}")
    proto = _normalized(model, original, manifest, profile)
    graph, defended_input = proto.graph, f"{PREFIX}defended"
    rename_reads(list(graph.node), spec.name, defended_input)
    builder = _defended(spec, _input_type(original, spec.name), profile, defended_input, opset_of(proto))
    verifier, before = list(graph.node), len(builder.nodes)
    _check_defended(verifier, defended_input, manifest)
    if _is_fanned(profile):
        fold_variants(graph, builder, manifest, profile, defended_input)
    del graph.node[:]
    graph.node.extend([*builder.nodes[:before], *verifier, *builder.nodes[before:]])
    graph.initializer.extend(builder.initializers)
    graph.input.extend(builder.inputs)
    meet_averages(graph, defended_input)
    proto.ir_version = max(proto.ir_version, OLDEST_FORMAT)
    # Whoever calls the file finds the shapes that the original has. Constants may be among the inputs, too.
    before_it = {value.name: value for value in (*original.graph.input, *original.graph.output)}
    for value in (*graph.input, *graph.output):
        if value.name in before_it:
            value.CopyFrom(before_it[value.name])
    return bytes(proto.SerializeToString())


def _is_fanned(profile: Profile) -> bool:
    """Whether the verifier runs on several variants of every image."""
    return profile.draws > 1 or profile.detector is not None


def _normalized(model: bytes, original: onnx.ModelProto, manifest: Manifest, profile: Profile) -> onnx.ModelProto:
    """Return the verifier in an operator set that the defenses can be built with, and with a batch for all variants.

    Raises:
        InputError: it has no such form.
    """
    fanned, where = _is_fanned(profile), manifest.model
    opset = max([_OLDEST_OPSET, *map(oldest_opset, (*profile.defenses, *profile.squeezers))])
    wanted = Wanted(
        opset=max(opset, _FOLDING_OPSET) if fanned or profile.random else opset,
        newest_opset=_NEWEST_OPSET_OF_RANDOM if profile.random else 0,
        any_batch=fanned,
    )
    try:
        return parse_onnx(normalized(model, manifest, wanted), where)
    except InputError as error:
        batch = batch_of(original, manifest.input.name)
        if not (fanned and batch):
            raise
        raise InputError(
            f"{where}: has a fixed batch size of {batch}, but profile {profile.name!r} runs it on several variants of "
            f"every image at once, and the batch cannot be freed; export it with a free batch size ({error})"
        ) from error


def _input_type(proto: onnx.ModelProto, name: str) -> int:
    return int(next(value for value in proto.graph.input if value.name == name).type.tensor_type.elem_type)


def checked_graph(model: bytes, manifest: Manifest) -> onnx.ModelProto:
    """Parse a serialized verifier, and check that its graph can be modified.

    Raises:
        InputError: the model is not an ONNX file, has other inputs or outputs than the manifest, an input that is not
            of images, constants in another file, custom operators, or incomplete nodes. The message names the place.
    """
    where, name, output = manifest.model, manifest.input.name, manifest.output.name
    proto = parse_onnx(model, where)
    inputs = inputs_of(proto.graph)
    if [value.name for value in inputs] != [name]:
        names = [value.name for value in inputs]
        raise InputError(f"{where}: inputs are {names}; a verifier must have one input, {name!r}")
    (entry,) = inputs
    if len(entry.type.tensor_type.shape.dim) != 4:
        raise InputError(f"{where}: input {name!r} is no batch of images with four dimensions")
    kind = entry.type.tensor_type.elem_type
    if kind not in KIND_OF:
        known = kind in onnx.TensorProto.DataType.values()
        said = onnx.TensorProto.DataType.Name(kind) if known else "unknown"
        raise InputError(f"{where}: input {name!r} is of type {said}, and must be FLOAT, FLOAT16 or UINT8")
    outputs = [value.name for value in proto.graph.output]
    if output not in outputs:
        raise InputError(f"{where}: outputs are {outputs}, but the manifest names {output!r}")
    local = {(function.domain, function.name) for function in proto.functions}
    for graph in graphs_of(proto.graph, where):
        outside = [t.name for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        if outside:
            raise InputError(f"{where}: constant {outside[0]!r} is in another file; save the model as one file")
        custom = [n for n in graph.node if n.domain not in _KNOWN_DOMAINS and (n.domain, n.op_type) not in local]
        if custom:
            raise InputError(
                f"{where}: node {custom[0].name!r} is the custom operator {custom[0].domain}.{custom[0].op_type}; "
                "export the model without custom operators"
            )
        for node in graph.node:
            if not node.output or (node.op_type == "Constant" and len(node.attribute) != 1):
                raise InputError(f"{where}: node {node.name!r} ({node.op_type}) lacks an output or a value")
    return proto


def is_hardened(graph: onnx.GraphProto) -> bool:
    """Return whether a graph has nodes or values of a defense."""
    return any(name.startswith(PREFIX) for node in graph.node for name in (node.name, *node.output))


def check_defense(proto: onnx.ModelProto, manifest: Manifest) -> None:
    """Check that the verifier in a hardened graph sees the input only through the defense.

    Raises:
        InputError: a node outside of the defense, or a graph inside a node, reads the input itself.
    """
    verifier = [node for node in proto.graph.node if not node.name.startswith(PREFIX)]
    _check_defended(verifier, f"{PREFIX}defended", manifest)


def _check_defended(verifier: list[onnx.NodeProto], defended: str, manifest: Manifest) -> None:
    """Check that nodes of a verifier read the defended input and never the raw one.

    Raises:
        InputError: they read the raw input, or no node reads the defended one.
    """
    where, name = manifest.model, manifest.input.name
    around = readers(verifier, name)
    if around:
        raise InputError(
            f"{where}: cannot be hardened, because node {around[0].name!r} ({around[0].op_type}) would see the input "
            f"{name!r} without the defense; export the model so that only one node reads the input"
        )
    if not readers(verifier, defended):
        raise InputError(f"{where}: cannot be hardened, because no node reads its input {name!r}")


def _defended(spec: Input, kind: int, profile: Profile, output: str, opset: int) -> GraphBuilder:
    """Build the nodes from the verifier's input to `output`.

    They convert the input to (N, 3, H, W), RGB in [0, 1], apply the defenses, and convert the result back. The squeezed
    forms follow the defended images along the batch. Defenses compute in float32. If the verifier takes bytes, what
    they give is rounded, as the toolkit rounds images at the edge of such a verifier.
    """
    builder = GraphBuilder(PREFIX, opset, spec.name, profile.draws)
    scale, offset = (a.reshape(1, 3, 1, 1) for a in unit_affine(spec))
    affine = bool(np.any(scale != 1) or np.any(offset != 0))
    # Defenses that work on any range do not need the conversion to [0, 1] and back, because scales are positive.
    affine &= not all(any_range(step) for step in (*profile.defenses, *profile.squeezers))
    value = spec.name
    if kind != _FLOAT:
        value = builder.add("Cast", [value], to=_FLOAT)
    if spec.layout == "NHWC":
        value = builder.add("Transpose", [value], perm=[0, 3, 1, 2])
    if affine:
        value = builder.add("Mul", [value, builder.constant(scale)])
        value = builder.add("Add", [value, builder.constant(offset)])
    if spec.channels == "BGR":
        value = _reverse_channels(builder, value)
    value = profile.onnx(builder, value)
    if profile.squeezers:
        value = builder.add("Concat", [value, *(s.onnx(builder, value) for s in profile.squeezers)], axis=0)
    if spec.channels == "BGR":
        value = _reverse_channels(builder, value)
    if affine:
        value = builder.add("Sub", [value, builder.constant(offset)])
        value = builder.add("Div", [value, builder.constant(scale)])
    sink_upsampling(builder.nodes)
    value = _as_type(builder, value, kind)
    if spec.layout == "NHWC":
        builder.add("Transpose", [value], output, perm=[0, 2, 3, 1])
    else:
        builder.add("Identity", [value], output)
    return builder


def _as_type(builder: GraphBuilder, value: str, kind: int) -> str:
    """Convert what the defenses give to the type of the verifier's input."""
    if kind == _BYTES:
        levels = [builder.constant(np.array(level, np.float32)) for level in (0, 255)]
        value = builder.add("Clip", [builder.add("Round", [value]), *levels])
    return value if kind == _FLOAT else builder.add("Cast", [value], to=kind)


def _reverse_channels(builder: GraphBuilder, value: str) -> str:
    return builder.add("Gather", [value, builder.constant(np.array([2, 1, 0], np.int64))], axis=1)
