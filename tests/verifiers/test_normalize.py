"""Normal forms: what they have, that they compute the same, and what has none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.kinds import KINDS, SIDE, SIZE, constants_as_inputs, node, raised
from toolkit.errors import InputError
from toolkit.verifiers import normalize
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.normalize import Wanted, normalized
from toolkit.verifiers.onnx_file import in_order, opset_of

FOLDED = Wanted(("embedding",), folded=True, any_batch=True)
X = (255 * np.random.default_rng(2).random((3, 3, SIDE, SIDE))).astype(np.float32)


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["embedding"], {"input": x})[0])


def parsed(model: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(model)


def edited(manifest: Manifest, *nodes: onnx.NodeProto, **constants: np.ndarray) -> bytes:
    """The verifier whose last node gives `row`, followed by other nodes."""
    model = onnx.load(manifest.model)
    model.graph.node[-1].output[0] = "row"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return bytes(model.SerializeToString())


def test_what_fits_is_left_as_it_is(tmp_path: Path) -> None:
    manifest = KINDS["several outputs, ages by Softmax"].write(tmp_path)
    model = manifest.model.read_bytes()
    assert normalized(model, manifest, Wanted(opset=13, any_batch=True)) is model


@pytest.mark.parametrize("name", ["batch of 2 in a Reshape", "opset 7, batch of 1 in a Reshape", "If on a constant"])
def test_a_normal_form_has_any_batch_and_constants_alone(tmp_path: Path, name: str) -> None:
    manifest = KINDS[name].write(tmp_path)
    model = manifest.model.read_bytes()
    form = normalized(model, manifest, FOLDED)
    batch = parsed(model).graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    expected = np.concatenate([run(model, np.repeat(x[None], batch, 0))[:1] for x in X])
    np.testing.assert_allclose(run(form, X), expected, atol=1e-5)
    np.testing.assert_allclose(run(form, X[:1]), expected[:1], atol=1e-5)
    onnx.checker.check_model(parsed(form), full_check=True)
    assert {n.op_type for n in parsed(form).graph.node} <= {"Mul", "Conv", "Relu", "GlobalAveragePool", "Flatten",
                                                            "Reshape", "MatMul"}  # fmt: skip


def test_the_part_between_input_and_output_is_cut_out(tmp_path: Path) -> None:
    manifest = KINDS["several outputs, ages by Softmax"].write(tmp_path)
    form = parsed(normalized(manifest.model.read_bytes(), manifest, FOLDED))
    assert [value.name for value in form.graph.output] == ["embedding"]
    assert "Softmax" not in {n.op_type for n in form.graph.node}
    assert "ages_of" not in {tensor.name for tensor in form.graph.initializer}


def test_nodes_are_ordered_and_the_operator_set_is_in_the_range(tmp_path: Path) -> None:
    manifest = KINDS["nodes out of order"].write(tmp_path)
    form = parsed(normalized(manifest.model.read_bytes(), manifest, Wanted()))
    assert [n.op_type for n in form.graph.node] == ["Mul", "Conv", "Relu", "Identity", "GlobalAveragePool", "Flatten",
                                                    "MatMul"]  # fmt: skip
    for name, wanted, opset in (
        ("opset 9", Wanted(opset=13), 13), ("the newest opset", Wanted(opset=13, newest_opset=21), 21),
        ("as it is", Wanted(opset=13, newest_opset=21), 18),
    ):  # fmt: skip
        manifest = KINDS[name].write(tmp_path)
        assert opset_of(parsed(normalized(manifest.model.read_bytes(), manifest, wanted))) == opset


def test_a_node_that_reads_from_inside_its_body_comes_after_what_it_reads(tmp_path: Path) -> None:
    model = KINDS["Loop"].model()
    nodes = list(model.graph.node)
    assert in_order(nodes[::-1], tmp_path)[-1].op_type == "Loop"
    assert in_order(nodes, tmp_path) == nodes
    with pytest.raises(InputError, match="depends on itself"):
        in_order([node("Relu", "a", "b"), node("Relu", "b", "a")], tmp_path)


def test_constants_that_are_inputs_are_folded(tmp_path: Path) -> None:
    manifest = KINDS["Identity before constants"].write(tmp_path)
    model = onnx.load(manifest.model)
    constants_as_inputs(model)
    form = parsed(normalized(model.SerializeToString(), manifest, FOLDED))
    assert [value.name for value in form.graph.input] == ["input"]
    assert "Identity" not in {n.op_type for n in form.graph.node}


def test_the_same_model_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    manifest = KINDS["opset 7, batch of 1 in a Reshape"].write(tmp_path)
    form = normalized(manifest.model.read_bytes(), manifest, FOLDED)
    program = (
        "import sys, hashlib; from pathlib import Path; from toolkit.verifiers.manifest import read_manifest; "
        "from toolkit.verifiers.normalize import Wanted, normalized; m = read_manifest(Path(sys.argv[1])); "
        "w = Wanted(('embedding',), folded=True, any_batch=True); "
        "sys.stdout.buffer.write(normalized(m.model.read_bytes(), m, w))"
    )
    done = subprocess.run([sys.executable, "-c", program, manifest.path], capture_output=True, check=True)
    assert done.stdout == form


def test_each_form_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = KINDS["batch of 2"].write(tmp_path)
    model = manifest.model.read_bytes()
    form = normalized(model, manifest, FOLDED)
    monkeypatch.setattr(normalize, "run_apart", None)
    assert normalized(model, manifest, FOLDED) is form


@pytest.mark.parametrize(
    ("name", "message"),
    [("mixes its batch", "computes something else: output 'embedding' differs by"),
     ("has no row for each image", "cannot be compared")],
)  # fmt: skip
def test_a_batch_that_cannot_be_freed_is_refused(tmp_path: Path, name: str, message: str) -> None:
    manifest = KINDS["batch of 1"].write(tmp_path)
    model = {
        # Centered over the batch: of one image all is zero, and the bias is left.
        "mixes its batch": edited(
            manifest, node("ReduceMean", "row zero", "center"), node("Sub", "row center", "centered"),
            node("Add", "centered ones", "embedding"), zero=np.array([0]), ones=np.ones((1, SIZE), np.float32),
        ),
        "has no row for each image": edited(
            manifest, node("ReduceSum", "row", "sum"), node("Expand", "sum shape", "embedding"),
            shape=np.array([1, SIZE]),
        ),
    }[name]  # fmt: skip
    with pytest.raises(InputError, match=message):
        normalized(model, manifest, FOLDED)


def test_a_hostile_model_dies_apart(tmp_path: Path) -> None:
    manifest = KINDS["opset 9"].write(tmp_path)
    with pytest.raises(InputError, match=r"tiny\.onnx"):
        normalized(manifest.model.read_bytes()[:-50], manifest, Wanted(opset=13))
    huge = raised(18)(onnx.load(manifest.model))
    huge.graph.node.append(node("ConstantOfShape", "size", "much"))
    huge.graph.node.append(node("ReduceSum", "much", "sum", keepdims=0))
    huge.graph.node[-3].output[0] = "row"
    huge.graph.node.append(node("Add", "row sum", "embedding"))
    huge.graph.initializer.append(numpy_helper.from_array(np.array([1 << 36]), "size"))
    with pytest.raises(InputError, match=r"tiny\.onnx"):
        normalized(huge.SerializeToString(), manifest, FOLDED)
