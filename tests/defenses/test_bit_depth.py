"""Bit depth is a projection onto few levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.defenses.bit_depth import BitDepth


@given(bits=st.integers(1, 7), seed=st.integers(0, 1000))
def test_it_is_idempotent_and_moves_no_value_further_than_half_a_step(bits: int, seed: int) -> None:
    crops = np.random.default_rng(seed).random((1, 5, 7, 3), np.float32)
    once = BitDepth(bits).numpy(crops)
    np.testing.assert_array_equal(BitDepth(bits).numpy(once), once)
    assert np.abs(once - crops).max() <= 0.5 / (2**bits - 1) + 1e-6


def test_the_levels_are_all_used_and_reach_both_ends() -> None:
    ramp = np.linspace(0, 1, 3 * 64, dtype=np.float32).reshape(1, 8, 8, 3)
    np.testing.assert_allclose(np.unique(BitDepth(2).numpy(ramp)), [0, 1 / 3, 2 / 3, 1], atol=1e-7)


def test_the_gradient_is_that_of_the_identity() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    crops, weights = (tf.constant(rng.random((1, 6, 6, 3), np.float32)) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(crops)
        total = tf.reduce_sum(BitDepth(3).tensorflow(crops) * weights)
    np.testing.assert_array_equal(tape.gradient(total, crops), weights)


def test_bad_bits_are_refused() -> None:
    for bits in (-1, 0, 8):
        with pytest.raises(ValueError, match="bits"):
            BitDepth(bits)
