"""Additive uniform noise (the paper's uniform attack, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.noise import craft_noise, noise_traits
from toolkit.parameters import number
from toolkit.pixels import Images


def _unit_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> Images:
    """Return uniform noise with standard deviation 1, which is uniform from -sqrt(3) to sqrt(3)."""
    return (generator.random(shape, dtype=np.float32) * 2 - 1) * np.float32(np.sqrt(3))


@dataclass(frozen=True)
class Uniform:
    """Adds independent uniform noise to every value, with a standard deviation that rises until the decision flips.

    Attributes:
        levels: the number of standard deviations.
        largest: the largest standard deviation before clipping, in units of the pixel range.
        draws: the number of draws for each standard deviation.
        squared: whether the standard deviations rise quadratically instead of linearly.
    """

    name: ClassVar[str] = "uniform"
    needs: ClassVar[Needs] = "runtime"
    levels: int = number(20, 1, 10_000)
    largest: float = number(0.5, 1e-6, 1000)
    draws: int = number(1, 1, 1000)
    squared: bool = False

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return noise_traits(self.levels, self.largest, self.draws, squared=self.squared)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_noise`."""
        return craft_noise(model, task, self.levels, self.largest, self.draws, self.squared, _unit_uniform)


ATTACK = Uniform()
