"""Balls and linear maps of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.attacks.norms import Ball, Convex, Norm, ascending, dual, shrink, sizes
from toolkit.attacks.resampling import apply, gaussian_blur, linear_resize


@given(st.integers(0, 2**32 - 1), st.sampled_from(["linf", "l2"]), st.floats(0.002, 3.0), st.floats(0.001, 1.0))
def test_projections_and_rounding_stay_in_the_ball(seed: int, norm: Norm, epsilon: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    ball = Ball(norm, epsilon)
    clean = rng.integers(0, 256, (3, 5, 4, 3)).astype(np.float32) / np.float32(255)
    images = (clean + spread * rng.normal(size=clean.shape)).astype(np.float32)
    inside = ball.project(clean, images)
    rounded = ball.round(clean, inside)
    for result in (inside, rounded):
        assert (sizes(norm, result - clean) <= epsilon * (1 + 1e-4) + 1e-6).all()
        assert result.min() >= 0
        assert result.max() <= 1
    np.testing.assert_allclose(rounded * 255, np.rint(rounded * 255), atol=1e-4)
    np.testing.assert_allclose(ball.project(clean, inside), inside, atol=1e-6)
    assert (sizes(norm, ball.draw(rng, (5, 4, 3))[None]) <= epsilon * (1 + 1e-5)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_directions_have_unit_norm_and_none_where_there_is_no_gradient(norm: Norm) -> None:
    gradients = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    gradients[2] = 0
    np.testing.assert_allclose(sizes(norm, ascending(norm, gradients)), [1, 1, 0, 1], rtol=1e-6)


def test_a_pixel_counts_once_whatever_channels_change() -> None:
    deltas = np.zeros((3, 4, 5, 3), np.float32)
    deltas[1, 2, 3] = 0.5, 0, -0.25
    deltas[2, 0, 0, 1] = deltas[2, 3, 4, 2] = -1e-6
    np.testing.assert_array_equal(sizes("l0", deltas), [0, 1, 2])
    np.testing.assert_allclose(sizes("l1", deltas), [0, 0.75, 2e-6])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["linf", "l2", "l1"]), st.floats(0, 8))
def test_shrinking_finds_the_nearest_point_of_each_ball(seed: int, norm: Convex, radius: float) -> None:
    rng = np.random.default_rng(seed)
    deltas, radii = rng.normal(size=(3, 3, 2, 3)).astype(np.float32), np.array([radius, np.inf, radius / 3])
    nearest = shrink(norm, deltas, radii)
    assert (sizes(norm, nearest) <= radii + 1e-5).all()
    np.testing.assert_array_equal(nearest[1], deltas[1])
    # No other point of the ball lies on the far side of the nearest one.
    others = rng.normal(size=deltas.shape).astype(np.float32)
    others *= (np.minimum(radii, 1) / sizes(norm, others)).astype(np.float32)[:, None, None, None]
    assert (np.sum((deltas - nearest) * (others - nearest), axis=(1, 2, 3)) <= 1e-4).all()


@pytest.mark.parametrize(("norm", "best"), [("linf", [1.0, -1.0, 1.0]), ("l2", [0.6, -0.8, 0.0]), ("l1", [0, -1.0, 0])])
def test_the_dual_norm_is_the_most_that_a_perturbation_of_norm_1_gains(norm: Convex, best: list[float]) -> None:
    gradient, delta = (np.array(values, np.float32).reshape(1, 1, 1, 3) for values in ([3, -4, 0], best))
    assert sizes(norm, delta)[0] == pytest.approx(1)
    assert dual(norm, gradient)[0] == pytest.approx(float((gradient * delta).sum()))


def test_resizing_keeps_constants_and_slopes() -> None:
    for size, to in ((12, 7), (7, 12), (5, 5), (1, 3)):
        matrix = linear_resize(size, to)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    ramp = linear_resize(12, 6) @ np.arange(12, dtype=np.float32)
    np.testing.assert_allclose(ramp, 2 * np.arange(6) + 0.5, atol=1e-5)
    np.testing.assert_array_equal(linear_resize(5, 5), np.eye(5, dtype=np.float32))


def test_blur_is_symmetric_and_keeps_constants_inside() -> None:
    blur = gaussian_blur(12, 7)
    np.testing.assert_allclose(blur, blur.T)
    np.testing.assert_allclose(blur.sum(axis=1)[3:9], 1, rtol=1e-6)
    np.testing.assert_array_equal(gaussian_blur(6, 1), np.eye(6, dtype=np.float32))


def test_applying_is_a_product_along_each_side() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    rows, columns = rng.normal(size=(2, 6, 4)).astype(np.float32), rng.normal(size=(2, 7, 5)).astype(np.float32)
    expected = np.einsum("nij,njkc,nlk->nilc", rows, images, columns)
    np.testing.assert_allclose(apply(rows, columns, images), expected, rtol=1e-4, atol=1e-4)
