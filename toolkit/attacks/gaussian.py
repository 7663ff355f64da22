"""Additive Gaussian noise (the paper's Gaussian attack, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Images, Needs, Task
from toolkit.attacks.noise import craft_noise


def _standard_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Images:
    return generator.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussian noise on every value, its standard deviation rising until the decision flips."""

    name: ClassVar[str] = "gaussian"
    needs: ClassVar[Needs] = "runtime"
    levels: int = 20
    largest: float = 0.5
    draws: int = 1
    squared: bool = False

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_noise`."""
        return craft_noise(model, task, self.levels, self.largest, self.draws, self.squared, _standard_normal)


ATTACK = Gaussian()
