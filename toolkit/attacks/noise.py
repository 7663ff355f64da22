"""Additive noise whose strength rises until the decision flips; shared by the uniform and Gaussian attacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Images, Runtime, Task
from toolkit.attacks.queries import craft_ladder


def craft_noise(
    model: Runtime,
    task: Task,
    levels: int,
    largest: float,
    draws: int,
    squared: bool,  # noqa: FBT001 - a parameter of both attacks
    draw: Callable[[np.random.Generator, tuple[int, ...]], Images],
) -> Crafted:
    """Raise the standard deviation, step by step, until the 8-bit probe reaches its goal.

    Args:
        model: what is attacked; only its embeddings are used.
        task: the pairs.
        levels: number of standard deviations up to `largest`.
        largest: the last standard deviation, before clipping, in units of the pixel range.
        draws: fresh draws of noise at each level.
        squared: the deviations rise with the square of the level instead of equally.
        draw: gives noise of unit standard deviation.
    """
    share = np.arange(1, levels + 1) / levels
    deviations = np.repeat(largest * (share**2 if squared else share), draws)
    # A pair's noise at a rung must not depend on when or with whom it is tried.
    seeds = [generator.integers(1 << 63, size=len(deviations)) for generator in task.generators]

    def noisy(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
        images = np.empty_like(task.probes, shape=(len(rows), *task.probes.shape[1:]))
        for image, row, rung in zip(images, rows, rungs, strict=True):
            noise = draw(np.random.default_rng(seeds[row][rung]), image.shape)
            noise *= np.float32(deviations[rung])
            np.add(task.probes[row], noise, out=image)
            np.clip(image, 0, 1, out=image)
        return images

    return craft_ladder(model, task, len(deviations), noisy)
