"""Corruptions on images whose corrupted form is known."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from toolkit.faces.corruptions import CORRUPTIONS, STRENGTHS, Corruption, corrupt, disk
from toolkit.faces.images import read_image
from toolkit.faces.pairs import embedded_pairs

BY_NAME = {c.name: c for c in CORRUPTIONS}
FACES = np.random.default_rng(1).uniform(0.2, 0.8, (3, 56, 40, 3)).astype(np.float32)
FLAT = np.full((2, 224, 224, 3), 0.5, np.float32)


def real_faces() -> np.ndarray:
    paths = sorted((embedded_pairs() / "images").rglob("*.jpg"))[:3]
    return np.stack([cv2.resize(read_image(path), (112, 112), interpolation=cv2.INTER_AREA) for path in paths]) / (
        np.float32(255)
    )


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(count)]


def corrupted(name: str, images: np.ndarray, strength: int, seed: int = 0) -> np.ndarray:
    return corrupt(BY_NAME[name], images, strength, rngs(len(images), seed))


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.name)
def test_five_strengths_each_harms_more_and_the_seed_decides(corruption: Corruption) -> None:
    assert len(corruption.values) == STRENGTHS
    faces = real_faces()
    harms = []
    for strength in range(1, STRENGTHS + 1):
        found = corrupt(corruption, faces, strength, rngs(3))
        assert found.dtype == np.float32
        assert found.shape == faces.shape
        assert found.min() >= 0
        assert found.max() <= 1
        assert np.array_equal(found, corrupt(corruption, faces, strength, rngs(3)))
        # Each image is corrupted by itself.
        assert np.array_equal(found[1:2], corrupt(corruption, faces[1:2], strength, rngs(3)[1:2]))
        harms.append(float(((found - faces) ** 2).mean()))
    assert all(a < b for a, b in itertools.pairwise(harms)), harms
    random = corruption.name in ("shot", "noise", "occlusion")
    other = corrupt(corruption, faces, 1, rngs(3, 9))
    assert np.array_equal(other, corrupt(corruption, faces, 1, rngs(3))) != random


def test_a_disk_covers_its_area() -> None:
    kernel = disk(4.0)
    assert kernel.shape == (9, 9)
    assert kernel.sum() == pytest.approx(1)
    # Whole pixels inside have the same weight, one over the disk's area; the corners have none.
    assert kernel[4, 4] == pytest.approx(1 / (np.pi * 16), rel=0.01)
    assert kernel[4, 4] == kernel[4, 6]
    assert kernel[0, 0] == 0
    assert np.allclose(kernel, kernel.T)
    assert disk(0.1).max() == 1, "a disk within a pixel blurs nothing"


def test_blur_spreads_a_point_over_a_disk_that_scales_with_the_crop() -> None:
    for side, radius in ((224, 4.0), (112, 2.0)):
        point = np.zeros((1, side, side, 3), np.float32)
        point[0, side // 2, side // 2] = 1
        found = corrupted("blur", point, 2)[0, ..., 0]
        assert found.sum() == pytest.approx(1, rel=1e-5)
        assert found.max() == pytest.approx(1 / (np.pi * radius**2), rel=0.02)
    assert np.allclose(corrupted("blur", FLAT, 5), FLAT, atol=1e-6)


@pytest.mark.parametrize(("side", "share"), [(224, 1.0), (112, 0.5)])
def test_noise_has_its_deviation_and_shot_noise_that_of_its_photons(side: int, share: float) -> None:
    flat = np.full((2, side, side, 3), 0.5, np.float32)
    noisy = corrupted("noise", flat, 1) - flat
    assert noisy.mean() == pytest.approx(0, abs=1e-3)
    assert noisy.std() == pytest.approx(0.08 * share, rel=0.02)
    shot = corrupted("shot", flat, 1) - flat
    assert shot.mean() == pytest.approx(0, abs=1e-3)
    # Of n expected photons, the deviation is the root of n: here half of 60 photons of 224 pixels.
    assert shot.std() == pytest.approx(np.sqrt(0.5 / 60) * share, rel=0.02)


def test_brightness_and_contrast_by_hand() -> None:
    assert np.allclose(corrupted("brightness", FLAT, 2), 0.7, atol=1e-6)
    image = np.zeros((1, 4, 4, 3), np.float32)
    image[0, :2] = 1
    found = corrupted("contrast", image, 1)
    assert np.allclose(found[0, :2], 0.7)
    assert np.allclose(found[0, 2:], 0.3)


def test_low_resolution_averages_blocks() -> None:
    """A checkerboard of single pixels is flat at half the resolution."""
    board = np.indices((16, 16)).sum(0) % 2
    images = np.repeat(board[None, ..., None], 3, -1).astype(np.float32)
    assert np.allclose(corrupted("resolution", images, 2), 0.5)


def test_occlusion_covers_its_share_with_gray() -> None:
    image = np.zeros((1, 100, 100, 3), np.float32)
    for strength, share in enumerate(BY_NAME["occlusion"].values, 1):
        covered = corrupted("occlusion", image, strength)[0] == 0.5
        assert covered.all(-1).mean() == pytest.approx(share, abs=0.01)


def test_jpeg_keeps_what_it_can_and_the_order_of_channels() -> None:
    image = np.zeros((1, 64, 64, 3), np.float32)
    image[..., 0] = 0.8
    found = corrupted("jpeg", image, 1)
    assert np.abs(found - image).max() < 0.06
    assert not np.array_equal(corrupted("jpeg", FACES, 1), FACES)
