"""Every defense is one thing in three forms, borders included."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy import ndimage

import toolkit.defenses
from toolkit.defenses.base import Defense, GraphBuilder
from toolkit.defenses.mean import Mean
from toolkit.registry import discover


def run_onnx(defense: Defense, crops: np.ndarray) -> np.ndarray:
    """The ONNX form alone, between two transpositions made here."""
    builder = GraphBuilder("test/")
    value = defense.onnx(builder, "crops")
    shape = ["n", 3, *crops.shape[1:3]]
    graph = helper.make_graph(
        builder.nodes,
        "defense",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"crops": crops.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("defense", [Mean(2), Mean(3), Mean(5), Mean(10)], ids=str)
def test_the_three_forms_agree(defense: Defense) -> None:
    crops = np.random.default_rng(0).random((3, 20, 24, 3), np.float32)
    expected = defense.numpy(crops)
    np.testing.assert_allclose(run_onnx(defense, crops), expected, atol=1e-6)
    np.testing.assert_allclose(defense.tensorflow(crops).numpy(), expected, atol=1e-6)


@pytest.mark.shared
def test_they_agree_on_real_faces(shared) -> None:  # type: ignore[no-untyped-def]
    paths = sorted((shared / "lfw" / "images").glob("A*/*.jpg"))[:4]
    crops = np.stack([cv2.imread(str(path))[..., ::-1] for path in paths]).astype(np.float32) / 255
    defense = Mean(3)
    np.testing.assert_allclose(run_onnx(defense, crops), defense.numpy(crops), atol=1e-6)
    np.testing.assert_allclose(defense.tensorflow(crops).numpy(), defense.numpy(crops), atol=1e-6)


def test_mean_is_scipys_filter_with_mirrored_borders() -> None:
    crop = np.random.default_rng(1).random((15, 17, 3), np.float32)
    expected = ndimage.uniform_filter(crop, (3, 3, 1), mode="mirror")
    np.testing.assert_allclose(Mean(3).numpy(crop[None])[0], expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(2, 9), seed=st.integers(0, 1000))
def test_mean_keeps_flat_images_and_the_range(size: int, seed: int) -> None:
    crops = np.random.default_rng(seed).random((1, 16, 16, 3), np.float32)
    blurred = Mean(size).numpy(crops)
    assert blurred.min() >= crops.min() - 1e-6
    assert blurred.max() <= crops.max() + 1e-6
    np.testing.assert_allclose(Mean(size).numpy(np.full_like(crops, 0.25)), 0.25, atol=1e-6)


def test_gradient_through_mean_is_its_transpose() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(2)
    x, y = (tf.constant(rng.random((1, 12, 12, 3), np.float32)) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        product = tf.reduce_sum(Mean(3).tensorflow(x) * y)
    # For a linear map A, <A x, y> = <x, A^T y>.
    assert float(tf.reduce_sum(tape.gradient(product, x) * x)) == pytest.approx(float(product), rel=1e-5)


def test_bad_sizes_are_refused() -> None:
    for size in (0, 1, 32):
        with pytest.raises(ValueError, match="size"):
            Mean(size)


def test_the_registry_finds_the_defenses() -> None:
    assert "mean" in discover(toolkit.defenses, "DEFENSE")
