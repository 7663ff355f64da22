"""ONNX files as TensorFlow functions: the same values as ONNX Runtime, and true gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

from tests.models import MANIFEST, write_linear
from toolkit.errors import InputError
from toolkit.files import bundled
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.differentiable import differentiable
from toolkit.verifiers.manifest import Manifest, find_manifest, read_manifest
from toolkit.verifiers.onnx_graph import load_onnx
from toolkit.verifiers.tensorflow import TensorFlowVerifier

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def model_of(tmp_path: Path, nodes: list[Any], shape: list[Any], constants: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def both(path: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0], load_onnx(path)(tf.constant(x)).numpy()


IMAGE = ["n", 6, 11, 9]
CASES: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "conv with uneven pads": (
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 0, 2, 1], strides=[2, 1])],
        {"w": weights(4, 6, 3, 3), "b": weights(4)},
    ),
    "conv same upper": (
        [helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": weights(4, 6, 3, 3)},
    ),
    "conv dilated": (
        [helper.make_node("Conv", ["x", "w"], ["y"], dilations=[2, 2])],
        {"w": weights(4, 6, 3, 3)},
    ),
    "conv in groups": ([helper.make_node("Conv", ["x", "w"], ["y"], group=2)], {"w": weights(4, 3, 3, 3)}),
    "conv depthwise": ([helper.make_node("Conv", ["x", "w"], ["y"], group=6)], {"w": weights(6, 1, 3, 3)}),
    "max pool with pads": (
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {},
    ),
    "average pool without its pads": (
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {},
    ),
    "average pool with its pads": (
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
    ),
    "normalization, leaky ReLU, flatten, Gemm": (
        [
            helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["n"]),
            helper.make_node("LeakyRelu", ["n"], ["r"], alpha=0.2),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "c"], ["g"], transB=1, alpha=0.5),
            helper.make_node("LpNormalization", ["g"], ["y"], axis=1),
        ],
        {"s": weights(6), "b": weights(6), "m": weights(6), "v": weights(6) ** 2, "w": weights(5, 6), "c": weights(5)},
    ),
    "scale per channel behind a convolution": (
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Mul", ["c", "s"], ["m"]),
            helper.make_node("PRelu", ["m", "p"], ["y"]),
        ],
        {"w": weights(4, 6, 1, 1), "s": weights(4, 1, 1), "p": weights(4, 1, 1)},
    ),
    "concatenation, padded, flattened in ONNX's order": (
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Concat", ["c", "x"], ["k"], axis=1),
            helper.make_node("Pad", ["k", "pads"], ["p"], mode="reflect"),
            helper.make_node("Flatten", ["p"], ["y"]),
        ],
        {"w": weights(4, 6, 1, 1), "pads": np.array([0, 0, 1, 2, 0, 0, 2, 0], np.int64)},
    ),
    "transposed and reduced": (
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
            helper.make_node("ReduceMean", ["t"], ["y"], axes=[1, 2], keepdims=0),
        ],
        {"w": weights(4, 6, 1, 1)},
    ),
    "clipped": (
        [helper.make_node("Clip", ["x", "low", "high"], ["y"])],
        {"low": np.float32(-0.5), "high": np.float32(0.25)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_agree_with_onnx_runtime(tmp_path: Path, name: str) -> None:
    nodes, constants = CASES[name]
    deployed, translated = both(model_of(tmp_path, nodes, IMAGE, constants), weights(2, 6, 11, 9))
    np.testing.assert_allclose(translated, deployed, rtol=1e-4, atol=1e-5)


def test_what_has_no_gradient_is_refused_by_name(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["y"], name="odd one")]
    with pytest.raises(InputError, match=r"'odd one'.*NonZero"):
        load_onnx(model_of(tmp_path, nodes, IMAGE, {}))
    nodes = [helper.make_node("Pad", ["x"], ["y"], pads=[0] * 8, mode="edge", name="edged")]
    with pytest.raises(InputError, match=r"'edged'.*mode edge"):
        load_onnx(model_of(tmp_path, nodes, IMAGE, {}))(tf.zeros((1, 6, 11, 9)))


def flattened(batch: int) -> list[Any]:
    """As PyTorch writes x.view(x.size(0), -1), and as exports with a fixed batch write it."""
    if batch:
        return [helper.make_node("Reshape", ["pooled", "fixed"], ["flat"])]
    return [
        helper.make_node("Shape", ["pooled"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "zero"], ["count"], axis=0),
        helper.make_node("Unsqueeze", ["count", "axes"], ["counts"]),
        helper.make_node("Concat", ["counts", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
    ]


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_any_export_of_a_flattened_map_takes_any_batch(tmp_path: Path, batch: int) -> None:
    """The batch is computed, or frozen in a Reshape. Nodes are in the wrong order, and another output needs NonZero."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["ages"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
        *flattened(batch)[::-1],
        helper.make_node("GlobalAveragePool", ["split"], ["pooled"]),
        helper.make_node("Split", ["x"], ["split", "other"], axis=1),
    ]
    constants = {
        "fixed": np.array([max(batch, 1), -1]), "zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]),
        "w": weights(3, 4),
    }  # fmt: skip
    path = model_of(tmp_path, nodes, IMAGE, constants)
    x = weights(5, 6, 11, 9)
    run = load_onnx(path)
    expected = x[:, :3].mean((2, 3)) @ constants["w"]
    np.testing.assert_allclose(run(tf.constant(x)), expected, atol=1e-5)
    traced = tf.function(run, input_signature=[tf.TensorSpec((None, 6, 11, 9))])
    np.testing.assert_allclose(traced(tf.constant(x)), expected, atol=1e-5)


def test_the_embedding_may_be_any_output(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Exp", ["x"], ["z"])]
    path, x = model_of(tmp_path, nodes, IMAGE, {}), weights(1, 6, 11, 9)
    np.testing.assert_allclose(load_onnx(path, "z")(tf.constant(x)), np.exp(x), rtol=1e-5)
    np.testing.assert_allclose(load_onnx(path)(tf.constant(x)), -x)


def test_nodes_in_a_circle_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    with pytest.raises(InputError, match="depends on itself"):
        load_onnx(model_of(tmp_path, nodes, IMAGE, {}))


def test_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\xff nonsense")
    with pytest.raises(InputError, match="is not an ONNX file"):
        load_onnx(path)


HOSTILE: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "an input that nothing computes": ([helper.make_node("Relu", ["nowhere"], ["y"])], {}),
    "an output that nothing computes": ([helper.make_node("Relu", ["x"], ["z"])], {}),
    "a convolution without a kernel": ([helper.make_node("Conv", ["x"], ["y"])], {}),
    "a convolution of other channels": ([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weights(4, 5, 3, 3)}),
    "a stride of zero": (
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 0])],
        {},
    ),
    "a permutation that is none": ([helper.make_node("Transpose", ["x"], ["y"], perm=[0, 0, 9, -7])], {}),
    "an axis beyond the shape": ([helper.make_node("ReduceMean", ["x"], ["y"], axes=[99])], {}),
    "a node without an output": ([helper.make_node("Relu", ["x"], [])], {}),
    "an attribute of another type": ([helper.make_node("Flatten", ["x"], ["y"], axis="one")], {}),
}


def described(path: Path) -> Manifest:
    shown = MANIFEST.format(
        name="model", side=8, layout="NCHW", channels="RGB", size=3, metric="euclidean", threshold=1.0, range=[0, 1],
        mean=0.0, std=1.0, maximum=4.0,
    )  # fmt: skip
    path.with_suffix(".toml").write_text(shown.replace('name = "input"', 'name = "x"').replace('"embedding"', '"y"'))
    return read_manifest(path)


@pytest.mark.parametrize("name", HOSTILE)
def test_gradients_of_hostile_graphs_are_refused(tmp_path: Path, name: str) -> None:
    path = model_of(tmp_path, HOSTILE[name][0], ["n", 3, 8, 8], HOSTILE[name][1])
    with pytest.raises(InputError, match=r"model\.onnx: "):
        TensorFlowVerifier(described(path))


def test_a_result_that_ignores_the_input_has_no_gradient_but_can_be_audited(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(weights(1, 3)))
    verifier = TensorFlowVerifier(described(model_of(tmp_path, [constant], ["n", 3, 8, 8], {})))
    with pytest.raises(InputError, match="has no gradient"):
        verifier.distances_and_gradients(np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 3), np.float32))


def test_one_network_is_loaded_for_one_file_and_another_one_for_another_output_or_content(tmp_path: Path) -> None:
    """An audit of the same file does not load and trace it again; what a file computes is never another file's."""
    paths, kernel = [], weights(3, 3, 8, 8)
    for name, scale in (("one", 1), ("same", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])]
        paths.append(model_of(tmp_path / name, nodes, ["n", 3, 8, 8], {"w": np.float32(scale) * kernel}))
    one, same, other = (described(path) for path in paths)
    network = differentiable(one)
    assert differentiable(same) is network
    longer = replace(same, output=replace(same.output, normalize=not same.output.normalize))
    crops = np.random.default_rng(1).random((2, 8, 8, 3), np.float32)
    found = [TensorFlowVerifier(manifest).embed(crops) for manifest in (one, same, other, longer, one)]
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[4], found[0])
    np.testing.assert_allclose(found[2], 2 * found[0], rtol=1e-5)
    lengths = np.linalg.norm(found[0], axis=1, keepdims=True)
    assert (np.abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(found[3], found[0] / lengths, rtol=1e-4)


def test_distances_are_those_of_the_gradients_and_means_over_the_draws(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])]
    manifest = described(model_of(tmp_path, nodes, ["n", 3, 8, 8], {"w": weights(3, 3, 8, 8)}))
    rng, noise = np.random.default_rng(1), find_profile("randomized")
    crops, references = rng.random((40, 8, 8, 3), np.float32), rng.normal(size=(40, 3)).astype(np.float32)
    for draws in (1, 3):
        verifier = TensorFlowVerifier(manifest, noise.tensorflow, draws=draws)
        expected, _ = verifier.distances_and_gradients(crops, references)
        np.testing.assert_allclose(verifier.distances(crops, references), expected, rtol=1e-4)


def test_a_compiled_verifier_can_be_a_part_of_another_function(tmp_path: Path) -> None:
    """Libraries that the benchmarks compare with compile the verifier into functions of their own."""
    kernel = np.random.default_rng(0).normal(size=(8 * 8 * 3, 2)).astype(np.float32)
    verifier = TensorFlowVerifier(read_manifest(write_linear(tmp_path, weights=kernel, side=8)))
    crops = np.random.default_rng(1).random((3, 8, 8, 3), np.float32)

    @tf.function
    def summed(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(verifier._embed(x, tf.zeros((tf.shape(x)[0],), tf.int64))[0])

    x = tf.constant(crops)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = summed(x)
    assert float(total) == pytest.approx(verifier.embed(crops).sum(), rel=1e-5)
    expected = np.broadcast_to(kernel.sum(axis=1).reshape(8, 8, 3), crops.shape)
    np.testing.assert_allclose(tape.gradient(total, x), expected, rtol=1e-5)


def test_gradients_of_the_shipped_file_are_those_of_its_checkpoint(facenet_mini: TensorFlowVerifier) -> None:
    manifest, original = find_manifest("facenet-mini"), facenet_mini
    crops = np.random.default_rng(1).random((3, 160, 160, 3), np.float32)
    references = original.embed(np.random.default_rng(2).random((3, 160, 160, 3), np.float32))
    d, gradient = original.distances_and_gradients(crops, references)
    imported = TensorFlowVerifier(manifest, network=load_onnx(bundled("models") / "facenet-mini" / "facenet-mini.onnx"))
    d_file, gradient_file = imported.distances_and_gradients(crops, references)
    np.testing.assert_allclose(d_file, d, rtol=1e-4)
    difference = np.linalg.norm(gradient_file - gradient) / np.linalg.norm(gradient)
    assert difference < 1e-2


@pytest.mark.shared
def test_dlib_has_gradients(shared: Path) -> None:
    manifest = find_manifest(str(shared / "verifiers" / "dlib_resnet.onnx"))
    session = onnxruntime.InferenceSession(str(manifest.model), providers=["CPUExecutionProvider"])
    x = (255 * np.random.default_rng(3).random((2, 3, 150, 150))).astype(np.float32)
    translated = load_onnx(manifest.model)(tf.constant(x)).numpy()
    np.testing.assert_allclose(translated, session.run(None, {"input": x})[0], atol=1e-5)
