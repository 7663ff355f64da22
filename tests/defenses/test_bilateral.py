"""The bilateral filter keeps edges, becomes a Gaussian without colors, and follows its formula."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.defenses.bilateral import Bilateral


def test_it_follows_the_formula_at_one_pixel() -> None:
    crop = np.random.default_rng(0).random((9, 9, 3), np.float32)
    defense = Bilateral(5, 0.4, 1.5)
    total, weights = np.zeros(3), 0.0
    for i in range(2, 7):
        for j in range(2, 7):
            space = (i - 4) ** 2 + (j - 4) ** 2
            if space <= 4:  # a disk of radius 2
                color = np.abs(crop[i, j] - crop[4, 4]).sum()
                weight = np.exp(-(color**2) / (2 * 0.4**2) - space / (2 * 1.5**2))
                total, weights = total + weight * crop[i, j], weights + weight
    np.testing.assert_allclose(defense.numpy(crop[None])[0, 4, 4], total / weights, atol=1e-5)


def test_a_strong_edge_stays_and_weak_noise_goes() -> None:
    rng = np.random.default_rng(1)
    clean = np.full((1, 20, 20, 3), 0.2, np.float32)
    clean[:, :, 10:] = 0.8
    noisy = (clean + rng.normal(0, 0.02, clean.shape)).astype(np.float32)
    filtered = Bilateral(9, 0.2, 3.0).numpy(noisy)
    assert np.abs(filtered - clean).mean() < np.abs(noisy - clean).mean() / 2
    edge = filtered[:, :, 10].mean() - filtered[:, :, 9].mean()
    assert edge == pytest.approx(0.6, abs=0.02)


def test_the_gradient_is_the_true_one() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(2)
    crops, direction = (tf.constant(rng.random((1, 8, 9, 3), np.float32)) for _ in range(2))
    defense = Bilateral(5, 0.5, 2.0)
    with tf.GradientTape() as tape:
        tape.watch(crops)
        total = tf.reduce_sum(tf.square(defense.tensorflow(crops)))
    step = 1e-3
    ends = [float(tf.reduce_sum(tf.square(defense.tensorflow(crops + s * direction)))) for s in (step, -step)]
    slope = float(tf.reduce_sum(tape.gradient(total, crops) * direction))
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.01)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("size", 4), ("size", 1), ("size", 11), ("sigma_color", 0.0), ("sigma_color", 4.0), ("sigma_space", 0.1)],
)
def test_bad_parameters_are_refused(parameter: str, value: float) -> None:
    with pytest.raises(ValueError, match=parameter):
        Bilateral(**{parameter: value})
