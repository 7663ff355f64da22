"""The differentiable JPEG gives OpenCV's bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.defenses.test_agreement import run_onnx
from toolkit.defenses.jpeg import _CHROMA, _LUMA, Jpeg, quantization_table
from toolkit.errors import InputError
from toolkit.profiles.sizes import check_sizes
from toolkit.verifiers.manifest import find_manifest

both = pytest.mark.parametrize("subsampling", [True, False], ids=["420", "444"])


def drawn(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    """One image (1, height, width, 3) in [0, 1]."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.random((1, height, width, 3), np.float32)
    if kind == "extremes":  # the largest coefficients, and pixels that must be clipped
        return rng.integers(0, 2, (1, height, width, 3)).astype(np.float32)
    if kind == "flat":
        return np.full((1, height, width, 3), rng.random(3), np.float32)
    # Smooth colors, where a wrong neighbor at a border or a shifted chroma plane would show.
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y * a + x * b) for a, b in rng.uniform(-0.3, 0.3, (3, 2))]
    return (0.5 + 0.5 * np.stack(waves, axis=-1)[None]).astype(np.float32)


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["noise", "extremes", "flat", "smooth"]),
    height=st.integers(1, 40),
    width=st.integers(5, 40),
    quality=st.integers(5, 95),
    subsampling=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_all_sizes_and_qualities_are_opencvs(
    kind: str, height: int, width: int, quality: int, subsampling: bool, seed: int
) -> None:
    crops, defense = drawn(kind, height, width, seed), Jpeg(quality, subsampling)
    expected = defense.numpy(crops)
    np.testing.assert_array_equal(run_onnx(defense, crops), expected)
    np.testing.assert_array_equal(defense.tensorflow(crops).numpy(), expected)


@both
def test_a_compiled_graph_gives_the_same_bits(subsampling: bool) -> None:
    import tensorflow as tf

    crops, defense = drawn("noise", 33, 18, 0), Jpeg(75, subsampling)

    # TensorFlow rewrites what it compiles, divisions by constants for one.
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)], autograph=False)
    def compiled(images: Any) -> Any:
        return defense.tensorflow(images)

    np.testing.assert_array_equal(compiled(crops).numpy(), defense.numpy(crops))


@both
@pytest.mark.parametrize("quality", [5, 23, 50, 75, 95])
@pytest.mark.shared
def test_real_crops_are_opencvs(quality: int, subsampling: bool, shared: Path) -> None:
    paths = sorted((shared / "lfw" / "images").glob("B*/*.jpg"))[::30][:4]
    photographs = [cv2.imread(str(path))[..., ::-1] for path in paths]
    for side in (160, 150):  # whole squares of 16 x 16 pixels, and not
        crops = np.stack([cv2.resize(p[40:210, 40:210], (side, side)) for p in photographs]).astype(
            np.float32
        ) / np.float32(255)
        defense = Jpeg(quality, subsampling)
        expected = defense.numpy(crops)
        np.testing.assert_array_equal(run_onnx(defense, crops), expected)
        np.testing.assert_array_equal(defense.tensorflow(crops).numpy(), expected)


def test_an_image_does_not_depend_on_its_batch() -> None:
    crops = np.concatenate([drawn(kind, 21, 30, 0) for kind in ("noise", "extremes", "smooth")])
    defense = Jpeg(50)
    np.testing.assert_array_equal(run_onnx(defense, crops), defense.numpy(crops))
    np.testing.assert_array_equal(defense.tensorflow(crops).numpy(), defense.numpy(crops))


@both
def test_the_gradient_is_that_of_the_steps_without_their_rounding(subsampling: bool) -> None:
    import tensorflow as tf

    # At quality 95 in the middle of the range little is rounded and nothing clipped, so JPEG is nearly the identity.
    crops = tf.constant(0.3 + 0.4 * drawn("smooth", 32, 48, 1))
    direction = tf.constant(drawn("smooth", 32, 48, 2) - 0.5)
    with tf.GradientTape() as tape:
        tape.watch(crops)
        total = tf.reduce_sum(Jpeg(95, subsampling).tensorflow(crops) * direction)
    gradient = tape.gradient(total, crops)
    cosine = tf.reduce_sum(gradient * direction) / (tf.norm(gradient) * tf.norm(direction))
    assert float(cosine) > 0.97
    assert float(tf.norm(gradient) / tf.norm(direction)) == pytest.approx(1, abs=0.05)


def test_crops_that_libjpeg_enlarges_by_another_filter_are_refused() -> None:
    manifest = find_manifest("facenet-mini")
    check_sizes([Jpeg(75)], manifest.input, "profile x")
    narrow = dataclasses.replace(manifest.input, width=4)
    check_sizes([Jpeg(75, subsampling=False)], narrow, "profile x")
    with pytest.raises(InputError, match="at least 5 x 5"):
        check_sizes([Jpeg(75)], narrow, "profile x")


def test_quality_scales_the_tables_as_libjpeg_does() -> None:
    np.testing.assert_array_equal(quantization_table(_LUMA, 50), _LUMA)
    np.testing.assert_array_equal(quantization_table(_CHROMA, 50), _CHROMA)
    assert quantization_table(_LUMA, 75)[0, :4].tolist() == [8, 6, 5, 8]
    assert quantization_table(_LUMA, 25)[0, :4].tolist() == [32, 22, 20, 32]
    assert quantization_table(_CHROMA, 5).max() == 255


def test_lower_quality_loses_more() -> None:
    crops = np.random.default_rng(1).random((1, 24, 32, 3), np.float32)
    losses = [np.abs(Jpeg(quality).numpy(crops) - crops).mean() for quality in (90, 50, 10)]
    assert losses[0] < losses[1] < losses[2]


def test_bad_qualities_are_refused() -> None:
    for quality in (0, 4, 96, 100):
        with pytest.raises(ValueError, match="quality"):
            Jpeg(quality)
