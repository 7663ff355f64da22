"""Additive noise whose strength rises until the decision flips; shared by the uniform and Gaussian attacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolkit.attacks.base import Crafted, Images, Runtime, Task
from toolkit.attacks.queries import craft_ladder


def craft_noise(
    model: Runtime,
    task: Task,
    levels: int,
    largest: float,
    draws: int,
    draw: Callable[[np.random.Generator, tuple[int, ...]], Images],
) -> Crafted:
    """Raise the standard deviation in equal steps until the 8-bit probe reaches its goal.

    Args:
        model: what is attacked; only its embeddings are used.
        task: the pairs.
        levels: number of standard deviations, equally spaced up to `largest`.
        largest: the last standard deviation, before clipping, in units of the pixel range.
        draws: fresh draws of noise at each level.
        draw: gives noise of unit standard deviation.
    """
    deviations = np.repeat(np.linspace(largest / levels, largest, levels), draws)
    # A pair's noise at a rung must not depend on when or with whom it is tried.
    seeds = [generator.integers(1 << 63, size=len(deviations)) for generator in task.generators]

    def noisy(rows: np.ndarray[tuple[int], np.dtype[np.intp]], rung: int) -> Images:
        noise = [draw(np.random.default_rng(seeds[row][rung]), task.probes[row].shape) for row in rows]
        return np.clip(task.probes[rows] + np.float32(deviations[rung]) * np.stack(noise), 0, 1)

    return craft_ladder(model, task, len(deviations), noisy)
