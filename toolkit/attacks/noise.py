"""Additive noise with rising strength. The uniform and Gaussian attacks share this module."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Runtime, Task, Traits
from toolkit.attacks.queries import craft_ladder
from toolkit.pixels import Images


def craft_noise(
    model: Runtime,
    task: Task,
    levels: int,
    largest: float,
    draws: int,
    squared: bool,  # noqa: FBT001 - a parameter of both attacks
    draw: Callable[[np.random.Generator, tuple[int, ...]], Images],
) -> Crafted:
    """Raise the standard deviation of the noise until the 8-bit probe reaches its goal.

    Args:
        model: the attacked model.
        task: the pairs.
        levels: the number of standard deviations.
        largest: the largest standard deviation before clipping, in units of the pixel range.
        draws: the number of draws for each standard deviation.
        squared: whether the standard deviations rise quadratically instead of linearly.
        draw: draws noise with standard deviation 1 in a given shape.
    """
    share = np.arange(1, levels + 1) / levels
    deviations = np.repeat(largest * (share**2 if squared else share), draws)
    # Each pair and rung has its own seed, so that the noise does not depend on the order or the batch.
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


def noise_traits(levels: int, largest: float, draws: int, *, squared: bool) -> Traits:
    """The traits of an attack that calls `craft_noise` with these parameters."""
    share = 1 / levels
    return Traits(draws=levels * draws, finest=largest * (share**2 if squared else share))
