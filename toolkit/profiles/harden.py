"""The hardened verifier: a profile put around the verifier, in one ONNX graph."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from toolkit import __version__
from toolkit.defenses.base import GraphBuilder, any_range, opset_of, with_opset
from toolkit.errors import InputError, UsageError
from toolkit.files import write_bytes
from toolkit.profiles.detector import ATTACK_SCORE
from toolkit.profiles.profile import Profile
from toolkit.profiles.sizes import check_sizes
from toolkit.verifiers.edge import unit_affine
from toolkit.verifiers.manifest import DetectorOutput, Input, Manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.variants import onnx_attack_scores, onnx_fold

# How the names of all nodes of a profile begin, and of no other node.
PREFIX = "sixpixels/"
# Pad takes its amounts as an input from opset 11 on.
_OLDEST_OPSET = 11
# ReduceSum takes its axes as an input from opset 13 on.
_FOLDING_OPSET = 13
_STANDARD = ("", "ai.onnx")
_KNOWN_DOMAINS = (*_STANDARD, "ai.onnx.ml", "com.microsoft")


@dataclass(frozen=True)
class HardenedFile:
    """What `write_hardened` wrote."""

    path: Path
    manifest: Path
    sha256: str


def write_hardened(manifest: Manifest, profile: Profile, output: Path) -> HardenedFile:
    """Write the hardened verifier as one file that needs nothing of this project, with a manifest beside it.

    Its metadata hold the new manifest, the hashes of the verifier and of the profile, and the profile's text. The
    threshold stays what it was: calibrate it anew where the profile changes the clean error rates.

    Raises:
        InputError: the verifier cannot be hardened, or the output cannot be written.
        UsageError: the output would overwrite the verifier, or does not end in .onnx.
    """
    import tomlkit

    if output.suffix != ".onnx":
        raise UsageError(f"{output}: the name of a hardened verifier must end in .onnx")
    if output.resolve() == manifest.model.resolve():
        raise UsageError(f"{output}: is the verifier itself; write the hardened one elsewhere")
    model = read_model(manifest)
    proto = onnx.load_model_from_string(harden(model, manifest, profile))
    document: Any = tomlkit.parse(manifest.path.read_text(encoding="utf-8"))
    document["name"] = f"{manifest.name}+{profile.name}"
    document["model"]["file"] = output.name
    document["model"].pop("sha256", None)
    document["model"]["provenance"] = f"{manifest.provenance}; hardened by sixpixels with profile {profile.name}"
    # The checkpoint is of the bare verifier.
    document.pop("checkpoint", None)
    detector = hardened_manifest(manifest, profile).detector
    if detector is not None:
        document["detector"] = {
            "output": detector.name,
            "threshold": detector.threshold,
            "false_alarm": detector.false_alarm,
        }
    for key, text in {
        "sixpixels.manifest": tomlkit.dumps(document),
        "sixpixels.verifier_sha256": hashlib.sha256(model).hexdigest(),
        "sixpixels.profile_sha256": profile.sha256,
        "sixpixels.profile": profile.text,
        "sixpixels.version": __version__,
    }.items():
        for old in [p for p in proto.metadata_props if p.key == key]:
            proto.metadata_props.remove(old)
        proto.metadata_props.add(key=key, value=text)
    content = proto.SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    document["model"]["sha256"] = digest
    write_bytes(output, content)
    beside = output.with_suffix(".toml")
    write_bytes(beside, tomlkit.dumps(document).encode())
    return HardenedFile(output, beside, digest)


def hardened_manifest(manifest: Manifest, profile: Profile) -> Manifest:
    """The manifest of what `harden` gives: the verifier's own, with the profile's detector."""
    if profile.detector is None:
        return manifest
    found = profile.detector
    return replace(manifest, detector=DetectorOutput(ATTACK_SCORE, found.threshold, found.false_alarm))


def deploy(
    model: bytes, manifest: Manifest, profile: Profile, execution: Execution | None = None, seed: int | None = None
) -> RuntimeVerifier:
    """The hardened verifier in ONNX Runtime; `execution` and `seed` as of `RuntimeVerifier`.

    Raises:
        InputError: the verifier cannot be hardened or loaded.
        UnavailableError: the provider asked for is not there.
    """
    hardened = harden(model, manifest, profile)
    return RuntimeVerifier(hardened_manifest(manifest, profile), hardened, execution, seed)


def harden(model: bytes, manifest: Manifest, profile: Profile) -> bytes:
    """Fuse `profile` with a serialized verifier.

    The result takes the same input (name, shape, layout, range) and gives the same outputs, so that it drops in
    place of the original; with a detector, `attack_score` (N,) is one output more. The empty profile gives `model` back
    unchanged. Draws and squeezed forms of all images go through the verifier in one batch.

    Raises:
        InputError: the model is not an ONNX file, its opset is too old, or its manifest standardizes each image
            by itself before the graph, so that the graph cannot know the pixels; or an ensemble or a detector is asked
            for where the verifier takes a fixed batch or has several outputs.
    """
    if profile.empty:
        return model
    where, spec = manifest.model, manifest.input
    graph = checked_graph(model, manifest)
    opset = opset_of(graph)
    if opset < _OLDEST_OPSET:
        raise InputError(f"{where}: opset {opset} is too old to be hardened; convert it to {_OLDEST_OPSET} or later")
    fanned = profile.draws > 1 or profile.detector is not None
    newest = max(getattr(defense, "opset", 0) for defense in (*profile.defenses, *profile.squeezers))
    if fanned:
        _check_fan(graph.graph, manifest, profile)
        newest = max(newest, _FOLDING_OPSET)
    if opset < newest:
        graph, opset = with_opset(graph, newest, str(where)), newest
    if spec.standardization == "per-image":
        raise InputError(
            f"{where}: cannot be hardened, because its input is standardized image by image before the graph, "
            "which loses the pixel values; export the model with the standardization inside"
        )
    defended_input = f"{PREFIX}defended"
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            if name == spec.name:
                node.input[i] = defended_input
    check_sizes((*profile.defenses, *profile.squeezers), spec, f"profile {profile.name}")
    builder = _defended(spec, profile, defended_input, opset)
    original, before = list(graph.graph.node), len(builder.nodes)
    if fanned:
        _fold(graph.graph, builder, manifest, profile)
    del graph.graph.node[:]
    graph.graph.node.extend([*builder.nodes[:before], *original, *builder.nodes[before:]])
    graph.graph.initializer.extend(builder.initializers)
    graph.graph.input.extend(builder.inputs)
    return bytes(graph.SerializeToString())


def checked_graph(model: bytes, manifest: Manifest) -> onnx.ModelProto:
    """A serialized verifier as a graph that can be changed.

    Raises:
        InputError: it is not an ONNX file, has other inputs than the manifest's, constants in another file, or custom
            operators; the message names the place.
    """
    where, name = manifest.model, manifest.input.name
    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf raises its own family
        raise InputError(f"{where}: is not an ONNX file") from error
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value.name for value in proto.graph.input if value.name not in constants]
    if inputs != [name]:
        raise InputError(f"{where}: inputs are {inputs}; a verifier has one, {name!r}")
    outside = [t.name for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise InputError(f"{where}: constant {outside[0]!r} is kept in another file; save the model as one file")
    custom = [n for n in proto.graph.node if n.domain not in _KNOWN_DOMAINS]
    if custom:
        raise InputError(
            f"{where}: node {custom[0].name!r} is the custom operator {custom[0].domain}.{custom[0].op_type}"
        )
    return proto


def _check_fan(graph: onnx.GraphProto, manifest: Manifest, profile: Profile) -> None:
    """Refuse what cannot run several variants of each image in one batch."""
    where, asked = manifest.model, f"profile {profile.name!r} runs it on several variants of every image at once"
    batch = next(v for v in graph.input if v.name == manifest.input.name).type.tensor_type.shape.dim[0]
    if batch.dim_value > 0:
        raise InputError(
            f"{where}: takes a fixed batch of {batch.dim_value}, but {asked}; export it with a batch of any size"
        )
    outputs = [value.name for value in graph.output]
    if outputs != [manifest.output.name]:
        raise InputError(f"{where}: outputs are {outputs}, but {asked} and keeps only {manifest.output.name!r}")


def _fold(graph: onnx.GraphProto, builder: GraphBuilder, manifest: Manifest, profile: Profile) -> None:
    """Add the nodes behind the verifier that make one embedding, and the attack score, of the variants' embeddings."""
    output = manifest.output
    variants = f"{PREFIX}variants"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == output.name:
                    # A node without a name is known by its output, which is the profile's now.
                    node.name = node.name or name
                    names[i] = variants
    # They name the batch by the same symbol as the input, whose batch is smaller now.
    del graph.value_info[:]
    folded = onnx_fold(builder, variants, 1 + len(profile.squeezers), profile.draws, output.size)
    builder.add("Identity", [folded[0]], output.name)
    if profile.detector is None:
        return
    onnx_attack_scores(builder, manifest.decision.metric, folded, ATTACK_SCORE, normalize=output.normalize)
    score = onnx.helper.make_tensor_value_info(ATTACK_SCORE, onnx.TensorProto.FLOAT, [None])
    score.type.tensor_type.shape.dim[0].CopyFrom(graph.output[0].type.tensor_type.shape.dim[0])
    graph.output.append(score)


def _defended(spec: Input, profile: Profile, output: str, opset: int) -> GraphBuilder:
    """Nodes from the verifier's input to `output`: to (N, 3, H, W) RGB in [0, 1], through the defenses, and back.

    Squeezed forms of what is defended follow it along the batch.
    """
    builder = GraphBuilder(PREFIX, opset, spec.name, profile.draws)
    scale, offset = (a.reshape(1, 3, 1, 1) for a in unit_affine(spec))
    affine = bool(np.any(scale != 1) or np.any(offset != 0))
    # What does not look at the range is spared the way to [0, 1] and back; scales are positive.
    affine &= not all(any_range(step) for step in (*profile.defenses, *profile.squeezers))
    value = spec.name
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
    if spec.layout == "NHWC":
        builder.add("Transpose", [value], output, perm=[0, 2, 3, 1])
    else:
        builder.add("Identity", [value], output)
    return builder


def _reverse_channels(builder: GraphBuilder, value: str) -> str:
    return builder.add("Gather", [value, builder.constant(np.array([2, 1, 0], np.int64))], axis=1)
