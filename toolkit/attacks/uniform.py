"""Additive uniform noise (the paper's uniform attack, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Images, Needs, Task
from toolkit.attacks.noise import craft_noise
from toolkit.defenses.parameters import number


def _unit_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> Images:
    """Uniform noise of standard deviation 1: half-width sqrt(3)."""
    return (generator.random(shape, dtype=np.float32) * 2 - 1) * np.float32(np.sqrt(3))


@dataclass(frozen=True)
class Uniform:
    """Independent uniform noise on every value, its standard deviation rising until the decision flips."""

    name: ClassVar[str] = "uniform"
    needs: ClassVar[Needs] = "runtime"
    levels: int = number(20, 1, 10_000)
    largest: float = number(0.5, 1e-6, 1000)
    draws: int = number(1, 1, 1000)
    squared: bool = False

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_noise`."""
        return craft_noise(model, task, self.levels, self.largest, self.draws, self.squared, _unit_uniform)


ATTACK = Uniform()
