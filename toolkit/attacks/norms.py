"""Norms of perturbations, and balls that bound them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Norm = Literal["linf", "l2"]
Floats = NDArray[np.float32]

# The relative accuracy of the norm of float32 images.
_SLACK = 1e-5
_SHRINKINGS = 4


def sizes(norm: Norm, deltas: Floats) -> NDArray[np.float64]:
    """Return the norm (N,) of each perturbation (N, H, W, 3)."""
    if norm == "linf":
        return np.abs(deltas).max(axis=(1, 2, 3), initial=0).astype(np.float64)
    return np.sqrt(np.sum(np.square(deltas, dtype=np.float64), axis=(1, 2, 3)))


def per_image(values: NDArray[np.float64]) -> Floats:
    """Reshape values (N,) so that they multiply images (N, H, W, 3)."""
    return values.astype(np.float32)[:, None, None, None]


def ascending(norm: Norm, gradients: Floats) -> Floats:
    """Return the directions (N, H, W, 3) of steepest ascent with unit norm; zero for zero gradients."""
    if norm == "linf":
        return np.sign(gradients)
    return gradients * per_image(1 / np.maximum(sizes("l2", gradients), 1e-30))


@dataclass(frozen=True)
class Ball:
    """The set of images whose difference from a clean image has a norm of at most `epsilon`.

    `epsilon` is in units of the pixel range.
    """

    norm: Norm
    epsilon: float

    def project(self, clean: Floats, images: Floats) -> Floats:
        """Project images (N, H, W, 3) into the ball around the clean images and into [0, 1]."""
        if self.norm == "linf":
            epsilon = np.float32(self.epsilon)
            return np.clip(np.clip(images, clean - epsilon, clean + epsilon), 0, 1)
        delta = images - clean
        shrink = np.minimum(self.epsilon / np.maximum(sizes("l2", delta), 1e-30), 1)
        # Clipping keeps images in the ball, because the clean image is in [0, 1].
        return np.clip(clean + per_image(shrink) * delta, 0, 1)

    def round(self, clean: Floats, images: Floats) -> Floats:
        """Round images to 256 levels, within the ball.

        If rounding leaves the ball, the perturbation is shrunk slightly and rounded again. If this is not enough, its
        values are rounded toward zero.

        Args:
            clean: (N, H, W, 3), the clean images, whose values must have 256 levels.
            images: (N, H, W, 3), images in the ball.

        Returns:
            (N, H, W, 3) float32 with 256 levels.
        """
        levels = (images - clean) * np.float32(255)
        limit = 255 * self.epsilon * (1 + _SLACK)
        rounded = np.rint(levels)
        for _ in range(_SHRINKINGS):
            size = sizes(self.norm, rounded)
            if (size <= limit).all():
                break
            levels *= per_image(np.where(size > limit, 0.999 * limit / np.maximum(size, limit), 1))
            rounded = np.rint(levels)
        outside = sizes(self.norm, rounded) > limit
        rounded[outside] = np.trunc(levels[outside])
        return np.clip(np.rint(clean * np.float32(255)) + rounded, 0, 255) / np.float32(255)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Draw a perturbation uniformly from the ball."""
        if self.norm == "linf":
            return (generator.random(shape, dtype=np.float32) * 2 - 1) * np.float32(self.epsilon)
        direction = generator.standard_normal(shape, dtype=np.float32)
        # The radius of a uniform point in a d-dimensional ball is distributed like u^(1 / d).
        radius = self.epsilon * generator.random() ** (1 / direction.size)
        return direction * np.float32(radius / np.sqrt(np.sum(np.square(direction, dtype=np.float64))))
