"""How far the differentiable JPEG is from OpenCV's codec, and that its two forms are one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.defenses.test_agreement import real_faces, run_onnx
from toolkit.defenses.jpeg import _CHROMA, _LUMA, Jpeg, quantization_table

both = pytest.mark.parametrize("subsampling", [True, False], ids=["420", "444"])


@both
@pytest.mark.parametrize("quality", [5, 30, 50, 75, 95])
@pytest.mark.shared
def test_on_real_faces_it_is_close_to_opencv(quality: int, subsampling: bool, shared: Path) -> None:
    crops = real_faces(shared, 6)
    defense = Jpeg(quality, subsampling)
    levels = np.abs(run_onnx(defense, crops) - defense.numpy(crops)) * 255
    assert levels.mean() < 0.15
    assert (levels < 1.01).mean() > 0.98
    # A coefficient that was rounded the other way moves a block by a part of its step.
    assert levels.max() < 25


@both
@pytest.mark.parametrize("shape", [(1, 23, 30), (3, 33, 17), (1, 8, 8), (1, 1, 3)], ids=str)
def test_the_differentiable_forms_agree(subsampling: bool, shape: tuple[int, int, int]) -> None:
    crops = np.random.default_rng(0).random((*shape, 3), np.float32)
    defense = Jpeg(75, subsampling)
    difference = np.abs(run_onnx(defense, crops) - defense.tensorflow(crops).numpy())
    # They sum in another order, so a coefficient on an edge may fall to either side.
    assert (difference < 1e-6).mean() > 0.9
    assert difference.mean() * 255 < 0.5


@both
@pytest.mark.parametrize("shape", [(1, 23, 30), (2, 33, 17), (1, 16, 16), (1, 1, 5)], ids=str)
def test_padding_and_chroma_are_opencvs(subsampling: bool, shape: tuple[int, int, int]) -> None:
    # Smooth colors, where a wrong neighbor at a border or a shifted chroma plane would show.
    _, rows, columns = np.mgrid[: shape[0], : shape[1], : shape[2]]
    crops = np.stack([rows / 40, columns / 40, 0.5 + 0.4 * np.sin(rows / 5)], axis=-1).astype(np.float32)
    defense = Jpeg(90, subsampling)
    levels = np.abs(defense.tensorflow(crops).numpy() - defense.numpy(crops)) * 255
    assert levels.mean() < 0.2
    assert levels.max() < 6


@settings(max_examples=15)
@given(quality=st.integers(5, 95), subsampling=st.booleans(), color=st.tuples(*[st.integers(0, 255)] * 3))
def test_flat_images_are_opencvs(quality: int, subsampling: bool, color: tuple[int, int, int]) -> None:
    crops = np.full((1, 11, 18, 3), color, np.float32) / np.float32(255)
    defense = Jpeg(quality, subsampling)
    value = defense.tensorflow(crops).numpy()
    np.testing.assert_allclose(value, defense.numpy(crops), atol=1e-6)
    assert np.ptp(value, axis=(1, 2)).max() < 1e-6
    assert value.min() >= 0
    assert value.max() <= 1


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
