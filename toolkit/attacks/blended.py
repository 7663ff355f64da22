"""Blending with uniform noise until the decision flips (as in Rauber et al. 2017, arXiv:1707.04131)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.queries import craft_ladder, noise_blends
from toolkit.parameters import number


@dataclass(frozen=True)
class Blended:
    """Blends each probe with uniform noise, with a share that rises until the decision flips.

    Each pair has its own noise image. The share rises from 1 / `levels` to 1.
    """

    name: ClassVar[str] = "blended"
    needs: ClassVar[Needs] = "runtime"
    levels: int = number(50, 1, 10_000)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(draws=self.levels)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_ladder`."""
        return craft_ladder(model, task, self.levels, noise_blends(task, self.levels))


ATTACK = Blended()
