"""Every defense is one thing in three forms, borders included."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy import ndimage

from toolkit.defenses.base import Backward, Defense, GraphBuilder, any_range
from toolkit.defenses.bilateral import Bilateral
from toolkit.defenses.bit_depth import BitDepth
from toolkit.defenses.denoiser import Denoiser
from toolkit.defenses.gaussian import GaussianBlur
from toolkit.defenses.jpeg import Jpeg
from toolkit.defenses.mean import Mean
from toolkit.defenses.median import Median
from toolkit.defenses.total_variation import TotalVariation
from toolkit.defenses.wiener import Wiener
from toolkit.registry import discover

# Every exact defense, at its extremes, and how closely its forms agree.
EXACT: list[tuple[Defense, float]] = [
    (Mean(2), 1e-6), (Mean(3), 1e-6), (Mean(5), 1e-6), (Mean(10), 1e-6),
    (GaussianBlur(0.3), 1e-6), (GaussianBlur(1.0), 1e-6), (GaussianBlur(2.6), 1e-6),
    (Median(3), 0), (Median(5), 0),
    (BitDepth(1), 0), (BitDepth(4), 0), (BitDepth(7), 0),
    (Bilateral(3, 0.01, 0.3), 2e-6), (Bilateral(), 2e-6), (Bilateral(9, 1.0, 3.0), 2e-6),
    (Wiener(3, 1e-5), 3e-5), (Wiener(), 5e-6), (Wiener(9, 0.01), 5e-6),
    (TotalVariation(1e-6, 1), 1e-6), (TotalVariation(), 1e-6), (TotalVariation(0.37, 100), 1e-6),
    (Denoiser(), 1e-5),
    (Jpeg(5), 0), (Jpeg(), 0), (Jpeg(95, subsampling=False), 0),
]  # fmt: skip
# A network keeps nothing exactly; the others are filters, which keep what is flat.
FILTERS = [defense for defense, _ in EXACT if not isinstance(defense, Denoiser)]
exact = pytest.mark.parametrize(("defense", "tolerance"), EXACT, ids=str)
# Those that draw random numbers are in test_random.py.
DETERMINISTIC = {name: cls() for name, cls in discover("defense").items() if not getattr(cls, "random", False)}
deterministic = pytest.mark.parametrize("defense", DETERMINISTIC.values(), ids=DETERMINISTIC)


def run_onnx(defense: Defense, crops: np.ndarray, opset: int = 17) -> np.ndarray:
    """The ONNX form alone, all sides unknown, between two transpositions made here."""
    builder = GraphBuilder("test/", opset)
    value = defense.onnx(builder, "crops")
    shape = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        builder.nodes,
        "defense",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"crops": crops.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


def real_faces(shared: Path, count: int = 3) -> np.ndarray:
    """Parts of real photographs, 61 x 47."""
    paths = sorted((shared / "lfw" / "images").glob("A*/*.jpg"))[:count]
    return np.stack([cv2.imread(str(path))[90:151, 100:147, ::-1] for path in paths]).astype(np.float32) / 255


@exact
@pytest.mark.parametrize("shape", [(1, 23, 30), (3, 21, 17)], ids=str)
def test_the_three_forms_agree(defense: Defense, tolerance: float, shape: tuple[int, int, int]) -> None:
    crops = np.random.default_rng(0).random((*shape, 3), np.float32)
    expected = defense.numpy(crops)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(run_onnx(defense, crops), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(defense.tensorflow(crops).numpy(), expected, rtol=0, atol=tolerance)


@exact
@pytest.mark.shared
def test_they_agree_on_real_faces(defense: Defense, tolerance: float, shared: Path) -> None:
    crops = real_faces(shared)
    expected = defense.numpy(crops)
    np.testing.assert_allclose(run_onnx(defense, crops), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(defense.tensorflow(crops).numpy(), expected, rtol=0, atol=tolerance)


def test_every_registered_defense_is_covered() -> None:
    covered = {defense.name for defense, _ in EXACT}
    assert covered == {name for name, defense in DETERMINISTIC.items() if defense.exact}


@deterministic
def test_every_defense_declares_its_backward_pass_and_has_a_gradient(defense: Defense) -> None:
    import tensorflow as tf

    assert defense.backward in get_args(Backward)
    rng = np.random.default_rng(3)
    noisy = rng.random((2, 17, 19, 3), np.float32)
    # Flat parts are where square roots and quotients go wrong.
    noisy[0, :, :10] = 0.5
    weights = rng.random(noisy.shape, np.float32)

    # As the verifiers run it: compiled, and for any number and size of crops.
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)], autograph=False)
    def value_and_gradient(crops: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(crops)
            value = defense.tensorflow(crops)
            total = tf.reduce_sum(value * weights)
        return value, tape.gradient(total, crops)

    value, gradient = (v.numpy() for v in value_and_gradient(noisy))
    np.testing.assert_allclose(value, defense.tensorflow(noisy).numpy(), atol=1e-6)
    assert gradient.shape == noisy.shape
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.01


@deterministic
@pytest.mark.parametrize("opset", [11, 21])
def test_the_nodes_suit_old_and_new_verifiers(defense: Defense, opset: int) -> None:
    if isinstance(defense, Denoiser) and opset < 17:
        pytest.skip("a verifier older than the network is brought to the network's operator set instead")
    crops = np.random.default_rng(4).random((1, 18, 20, 3), np.float32)
    # Operators are summed in another order from one set to the next; a wrong attribute would differ by far more.
    np.testing.assert_allclose(run_onnx(defense, crops, opset), run_onnx(defense, crops), atol=3e-5)


@settings(max_examples=10, deadline=None)
@given(level=st.floats(0, 1, width=32), index=st.integers(0, len(FILTERS) - 1))
def test_flat_images_stay_flat(level: float, index: int) -> None:
    defense = FILTERS[index]
    value = defense.numpy(np.full((1, 18, 20, 3), level, np.float32))
    assert np.ptp(value) <= 1e-6
    # Only quantizing may move the level.
    if defense.name not in ("bit-depth", "jpeg"):
        np.testing.assert_allclose(value, level, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), binary=st.booleans(), index=st.integers(0, len(FILTERS) - 1))
def test_outputs_stay_in_the_range(seed: int, binary: bool, index: int) -> None:
    crops = np.random.default_rng(seed).random((1, 18, 20, 3), np.float32)
    value = FILTERS[index].numpy(np.round(crops) if binary else crops)
    assert value.min() >= -1e-6
    assert value.max() <= 1 + 1e-6


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
    assert "mean" in DETERMINISTIC


@pytest.mark.parametrize("defense", [d for d, _ in EXACT if any_range(d)], ids=str)
def test_what_says_so_commutes_with_every_positive_affine_map(defense: Defense) -> None:
    rng = np.random.default_rng(3)
    crops = rng.random((2, 3, 20, 24), np.float32)
    scale = rng.uniform(0.01, 300, (1, 3, 1, 1)).astype(np.float32)
    offset = rng.uniform(-200, 200, (1, 3, 1, 1)).astype(np.float32)
    there = run_onnx(defense, (scale * crops + offset).transpose(0, 2, 3, 1))
    back = scale * run_onnx(defense, crops.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) + offset
    np.testing.assert_allclose(there.transpose(0, 3, 1, 2), back, atol=2e-4)


def test_only_filters_that_do_not_look_at_the_range_say_so() -> None:
    saying = {name for name, defense in DETERMINISTIC.items() if any_range(defense)}
    assert saying == {"mean", "gaussian-blur", "median"}
