"""Blending with uniform noise until the decision flips (as in Rauber et al. 2017, arXiv:1707.04131)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from toolkit.attacks.base import Crafted, Gradients, Needs, Task
from toolkit.attacks.queries import craft_ladder, noise_blends
from toolkit.defenses.parameters import number


@dataclass(frozen=True)
class Blended:
    """One image of noise per pair takes the probe's place, its share rising from 1 over `levels` to all."""

    name: ClassVar[str] = "blended"
    needs: ClassVar[Needs] = "runtime"
    levels: int = number(50, 1, 10_000)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_ladder`."""
        return craft_ladder(model, task, self.levels, noise_blends(task, self.levels))


ATTACK = Blended()
