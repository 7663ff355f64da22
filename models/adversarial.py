"""The attack inside adversarial training: a few steps of gradient ascent on an embedding's cosine, in L2 balls."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def attacked(
    embed: Callable[[tf.Tensor], tf.Tensor],
    clean: tf.Tensor,
    goal: tf.Tensor,
    sign: tf.Tensor,
    epsilon: tf.Tensor,
    steps: int,
) -> tf.Tensor:
    """Move crops so that their embeddings come near to a goal or flee from it.

    Args:
        embed: maps crops (N, H, W, 3) in [0, 1] to unit embeddings (N, D).
        clean: the crops.
        goal: (N, D), unit embeddings.
        sign: (N,), 1 to approach and -1 to flee.
        epsilon: (N, 1, 1, 1), the radius of each ball.
        steps: the number of steps; the start is random.

    Returns:
        Crops in [0, 1] within the balls.
    """
    moved = 0.5 * epsilon * _along(tf.random.normal(tf.shape(clean)))
    stride = epsilon * (1.0 if steps == 1 else 2.0 / steps**0.5)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            reached = tf.reduce_sum(sign * tf.reduce_sum(embed(clean + moved) * goal, axis=1))
        moved += stride * _along(tape.gradient(reached, moved))
        moved = tf.clip_by_value(clean + moved * tf.minimum(1.0, epsilon / _lengths(moved)), 0.0, 1.0) - clean
    return clean + moved


def _along(gradient: tf.Tensor) -> tf.Tensor:
    return gradient / _lengths(gradient)


def _lengths(images: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_sum(tf.square(images), axis=(1, 2, 3), keepdims=True)) + 1e-12
