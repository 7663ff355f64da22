"""A hardened verifier sees its input only through the defense, also inside the bodies of If and Loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.commands import refused, sixpixels
from tests.models import write_linear
from toolkit.errors import InputError
from toolkit.export.quantize import Precision, quantized
from toolkit.profiles.harden import check_defense, harden
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier, read_model

SIDE = 8
WEIGHTS = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, 3)).astype(np.float32)
CROPS = np.random.default_rng(1).random((3, SIDE, SIDE, 3), np.float32)


def body(name: str) -> onnx.GraphProto:
    flat = f"{name}_flat"
    nodes = [
        helper.make_node("Flatten", ["input"], [flat]),
        helper.make_node("MatMul", [flat, "weights"], [f"{name}_out"]),
    ]
    out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["batch", 3])
    return helper.make_graph(nodes, name, [], [out])


def deep(name: str) -> onnx.GraphProto:
    node = helper.make_node(
        "If", ["always"], [f"{name}_out"], then_branch=body(f"{name}_a"), else_branch=body(f"{name}_b")
    )
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)])


def write_branching(folder: Path, *, twice: bool = False) -> Manifest:
    """A linear verifier whose whole work is done inside the branches of an If, which read the input from outside."""
    path = write_linear(folder, weights=WEIGHTS, side=SIDE)
    proto = onnx.load(path)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    make = deep if twice else body
    node = helper.make_node("If", ["always"], ["embedding"], then_branch=make("yes"), else_branch=make("no"))
    del proto.graph.node[:]
    proto.graph.node.append(node)
    path.write_bytes(proto.SerializeToString())
    return read_manifest(path)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("name", ["mean3", "detector", "randomized"])
def test_bodies_that_read_the_input_are_defended(tmp_path: Path, name: str, *, twice: bool) -> None:
    manifest, profile = write_branching(tmp_path, twice=twice), find_profile(name)
    hardened = harden(read_model(manifest), manifest, profile)
    if name == "mean3":
        found = RuntimeVerifier(manifest, hardened).embed(CROPS)
        np.testing.assert_allclose(found, profile.numpy(CROPS).reshape(3, -1) @ WEIGHTS, rtol=1e-3, atol=1e-4)
    check_defense(onnx.load_model_from_string(hardened), manifest)


def test_a_body_with_a_value_of_its_own_of_that_name_keeps_it(tmp_path: Path) -> None:
    manifest = write_branching(tmp_path)
    proto = onnx.load(manifest.model)
    own = numpy_helper.from_array(np.zeros((1, 8, 8, 3), np.float32), "input")
    proto.graph.node[0].attribute[0].g.initializer.append(own)
    with pytest.raises(InputError, match="linear"):
        harden(proto.SerializeToString(), manifest, find_profile("mean3"))


def test_the_proof_notices_a_node_around_the_defense(tmp_path: Path) -> None:
    manifest = write_branching(tmp_path)
    proto = onnx.load_model_from_string(harden(read_model(manifest), manifest, find_profile("mean3")))
    branch = next(node for node in proto.graph.node if node.op_type == "If").attribute[1].g
    branch.node[0].input[0] = "input"
    with pytest.raises(InputError, match="without the defense"):
        check_defense(proto, manifest)


def test_a_node_that_claims_to_belong_to_the_defense_is_refused(tmp_path: Path) -> None:
    manifest = write_branching(tmp_path)
    proto = onnx.load(manifest.model)
    proto.graph.node[0].name = "sixpixels/mine"
    with pytest.raises(InputError, match="hardened already"):
        harden(proto.SerializeToString(), manifest, find_profile("mean3"))


def test_a_verifier_that_ignores_its_input_is_refused(tmp_path: Path) -> None:
    manifest = write_branching(tmp_path)
    proto = onnx.load(manifest.model)
    del proto.graph.node[:]
    proto.graph.node.append(helper.make_node("Identity", ["constant"], ["embedding"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3), np.float32), "constant"))
    with pytest.raises(InputError, match="no node reads its input"):
        harden(proto.SerializeToString(), manifest, find_profile("mean3"))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_branch_on_a_constant_is_quantized_and_no_other(tmp_path: Path, precision: Precision) -> None:
    manifest = write_branching(tmp_path)
    crops = (CROPS * 255).astype(np.uint8)
    variant = quantized(read_model(manifest), manifest, precision, crops)
    assert "If" not in {node.op_type for node in variant.graph.node}
    proto = onnx.load(manifest.model)
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "always"))
    proto.graph.node.insert(0, helper.make_node("ReduceMax", ["input"], ["largest"], keepdims=0))
    proto.graph.node.insert(1, helper.make_node("Cast", ["largest"], ["always"], to=TensorProto.BOOL))
    onnx.save(proto, manifest.model)
    with pytest.raises(InputError, match="branches or loops"):
        quantized(read_model(manifest), manifest, precision, crops)


@pytest.mark.parametrize("kind", ["string", "sequence", "map"])
@pytest.mark.parametrize("command", ["evaluate", "harden", "quantize"])
def test_outputs_that_are_no_numbers_are_refused(work: Path, kind: str, command: str) -> None:
    path = work / "linear.onnx"
    proto = onnx.load(path)
    proto.graph.node[1].output[0] = "product"
    if kind == "string":
        proto.graph.node.append(helper.make_node("Cast", ["product"], ["embedding"], to=TensorProto.STRING))
        value = helper.make_tensor_value_info("embedding", TensorProto.STRING, ["batch", 2])
    elif kind == "sequence":
        proto.graph.node.append(helper.make_node("SequenceConstruct", ["product"], ["embedding"]))
        value = helper.make_tensor_sequence_value_info("embedding", TensorProto.FLOAT, None)
    else:
        proto.graph.node.append(
            helper.make_node("ZipMap", ["product"], ["embedding"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
        )
        proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
        value = onnx.ValueInfoProto(name="embedding")
        value.type.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
        value.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    proto.graph.output[0].CopyFrom(value)
    path.write_bytes(proto.SerializeToString())
    output = [] if command == "evaluate" else ["-o", work / "out" / "x.onnx"]
    pairs = [] if command == "harden" else ["--pairs", work / "people"]
    precision = ["--to", "fp16"] if command == "quantize" else []
    refused(sixpixels(command, path, *output, *pairs, *precision), "not a tensor of floating-point numbers")
    assert not (work / "out").exists()


@pytest.mark.parametrize("command", ["harden", "quantize"])
@pytest.mark.parametrize("part", ["input", "output", "node"])
def test_files_without_inputs_outputs_or_nodes_are_refused(work: Path, command: str, part: str) -> None:
    path = work / "linear.onnx"
    proto = onnx.load(path)
    proto.graph.ClearField(part)  # type: ignore[arg-type]
    path.write_bytes(proto.SerializeToString())
    pairs = [] if command == "harden" else ["--pairs", work / "people"]
    precision = ["--to", "fp16"] if command == "quantize" else []
    refused(sixpixels(command, path, "-o", work / "out.onnx", *pairs, *precision), "linear.onnx: ")
    assert not (work / "out.onnx").exists()


def test_nothing_is_written_that_cannot_be_read_back(tmp_path: Path) -> None:
    """The embedding of the defended verifier has another length than the manifest says."""
    path = write_linear(tmp_path, weights=WEIGHTS, side=SIDE)
    toml = path.with_suffix(".toml")
    toml.write_text(toml.read_text().replace("size = 3", "size = 4"))
    refused(sixpixels("harden", path, "-o", tmp_path / "out" / "hardened.onnx"), "embeddings of 4")
    assert not (tmp_path / "out").exists()
