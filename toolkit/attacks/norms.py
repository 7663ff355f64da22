"""Norms of perturbations, and balls that bound them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# The norms of balls.
Norm = Literal["linf", "l2"]
# What an attack may minimize: the largest change, the L2 norm, the sum of absolute changes, or the number of changed
# pixels. A pixel counts once, whatever channels change.
Size = Literal["linf", "l2", "l1", "l0"]
# The sizes that are norms: their balls are convex.
Convex = Literal["linf", "l2", "l1"]
Floats = NDArray[np.float32]

# The relative accuracy of the norm of float32 images.
_SLACK = 1e-5
_SHRINKINGS = 4


def sizes(norm: Size, deltas: Floats) -> NDArray[np.float64]:
    """Return the size (N,) of each perturbation (N, H, W, 3). For "l0", this is the number of changed pixels."""
    if norm == "linf":
        return np.abs(deltas).max(axis=(1, 2, 3), initial=0).astype(np.float64)
    if norm == "l0":
        return deltas.any(axis=3).sum(axis=(1, 2)).astype(np.float64)
    if norm == "l1":
        return np.sum(np.abs(deltas), axis=(1, 2, 3), dtype=np.float64)
    # Sums of a row in float32 and of the rows in float64 are as exact, and five times as fast, as all in float64.
    n, height, width, channels = deltas.shape
    rows = deltas.reshape(n, height, width * channels)
    return np.sqrt(np.sum(np.einsum("nhv,nhv->nh", rows, rows), axis=1, dtype=np.float64))


def per_image(values: NDArray[np.float64]) -> Floats:
    """Reshape values (N,) so that they multiply images (N, H, W, 3)."""
    return values.astype(np.float32)[:, None, None, None]


def dual(norm: Convex, gradients: Floats) -> NDArray[np.float64]:
    """Return the dual norm (N,) of gradients: how much a perturbation of norm 1 can change a linear function."""
    duals: dict[Convex, Convex] = {"linf": "l1", "l2": "l2", "l1": "linf"}
    return sizes(duals[norm], gradients)


def shrink(norm: Convex, deltas: Floats, radii: NDArray[np.float64]) -> Floats:
    """Project perturbations (N, H, W, 3) into balls around zero with the radii (N,), which may be infinite."""
    if norm == "l2":
        return deltas * per_image(np.minimum(1, radii / np.maximum(sizes("l2", deltas), 1e-30)))
    if norm == "linf":
        return np.clip(deltas, per_image(-radii), per_image(radii))
    # The projection lowers all changes by the same amount, down to zero.
    changes = np.abs(deltas)
    lowered = np.array([_lowering(change.ravel(), radius) for change, radius in zip(changes, radii, strict=True)])
    return np.copysign(np.maximum(changes - per_image(lowered), 0), deltas)


def _lowering(changes: Floats, radius: float) -> float:
    """How far to lower changes (n,), down to zero at most, so that they sum to at most `radius` (Michelot 1986).

    Lowering those that remain makes some of them zero, which then no longer count. Sorting would take twice as long.
    """
    lowered, count = 0.0, -1
    while len(changes) not in {0, count}:
        count = len(changes)
        lowered = max(float(np.sum(changes, dtype=np.float64) - radius) / count, 0.0)
        changes = changes[changes > lowered]
    return lowered


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
