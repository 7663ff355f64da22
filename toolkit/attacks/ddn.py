"""The decoupled direction and norm attack in L2 (Rony et al. 2019, arXiv:1811.09600, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.descent import Position, cosine, nearest_success, to_boundary
from toolkit.attacks.norms import ascending, per_image, sizes
from toolkit.parameters import number
from toolkit.pixels import Images


@dataclass(frozen=True)
class Ddn:
    """Takes gradient steps, and puts every step on a sphere whose radius shrinks after success and grows after failure.

    In contrast to FMN, the probe always lies on the sphere, also after a step that the gradient made shorter. The paper
    starts with a radius of 1 for small images; here the first radius is the distance to the linearized boundary.

    Attributes:
        steps: the number of steps.
        step: the length of the first step, as a multiple of the first radius; it decreases to a hundredth.
        gamma: the relative change of the radius in each step.
    """

    name: ClassVar[str] = "ddn"
    needs: ClassVar[Needs] = "gradient"
    steps: int = number(100, 1, 100_000)
    step: float = number(1.0, 1e-6, 100)
    gamma: float = number(0.05, 0, 0.99)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(minimizes="l2", steps=self.steps, restarts=1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; see `nearest_success`."""
        radius, first = np.zeros((2, len(task)))

        def move(at: Position) -> Images:
            if at.share == 0:
                radius[at.rows] = first[at.rows] = to_boundary(task, at)
            else:
                radius[at.rows] *= np.where(at.there, 1 - self.gamma, 1 + self.gamma)
            # The length of steps decreases along half a cosine (section 3 of the paper).
            length = cosine(self.step, self.step / 100, at.share) * first[at.rows]
            moved = at.delta + per_image(length) * ascending("l2", at.gradient)
            return moved * per_image(radius[at.rows] / np.maximum(sizes("l2", moved), 1e-30))

        return nearest_success(model, task, self.steps, move)


ATTACK = Ddn()
