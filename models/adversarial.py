"""Adversarial training: a few steps of gradient ascent on an embedding's cosine, in L2 balls, and how much holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from toolkit.faces.crops import CropSet
from toolkit.statistics.verification import best_threshold


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


def goals(embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The goals and signs of `attacked` for a batch: half flee from the own embedding, half approach another one."""
    half = tf.shape(embeddings)[0] // 2
    goal = tf.concat([embeddings[:half], tf.roll(embeddings, 1, 0)[half:]], axis=0)
    return goal, tf.concat([-tf.ones([half]), tf.ones([tf.shape(embeddings)[0] - half])], axis=0)


def _along(gradient: tf.Tensor) -> tf.Tensor:
    return gradient / _lengths(gradient)


def _lengths(images: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_sum(tf.square(images), axis=(1, 2, 3), keepdims=True)) + 1e-12


def watcher(
    embed: Callable[[tf.Tensor], tf.Tensor],
    watched: CropSet,
    genuine: np.ndarray,
    epsilon: float,
    steps: int,
    batch: int,
) -> Callable[[], str]:
    """Return a function that says how accurate a verifier is on watched pairs, and how many an attack turns around.

    Args:
        embed: see `attacked`; it is compiled once.
        watched: the pairs.
        genuine: which of them are of one person.
        epsilon, steps: of the attack.
        batch: pairs at a time.
    """

    @tf.function
    def distances(probes8: tf.Tensor, references8: tf.Tensor, sign: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Squared distances of the clean and of the attacked probes to their references."""
        probes, references = (tf.cast(x, tf.float32) / 255.0 for x in (probes8, references8))
        goal = embed(references)
        radius = tf.fill((tf.shape(probes)[0], 1, 1, 1), np.float32(epsilon))
        found = attacked(embed, probes, goal, sign, radius, steps)
        return tuple(2.0 - 2.0 * tf.reduce_sum(embed(x) * goal, axis=1) for x in (probes, found))

    def words() -> str:
        sign = np.where(genuine, -1.0, 1.0).astype(np.float32)
        parts = [
            distances(*(np.asarray(watched.images[c[i : i + batch]]) for c in watched.index.T), sign[i : i + batch])
            for i in range(0, len(genuine), batch)
        ]
        clean, moved = (np.concatenate([part[k].numpy() for part in parts]) for k in range(2))
        threshold = best_threshold(clean, genuine)
        right, held = ((d < threshold) == genuine for d in (clean, moved))
        return f"best accuracy {np.mean(right):.4f} at {threshold:.3f}, fell {np.mean(~held[right]):.4f}"

    return words
