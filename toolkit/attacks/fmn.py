"""The fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.descent import Position, cosine, nearest_success, to_boundary
from toolkit.attacks.norms import Convex, ascending, shrink
from toolkit.parameters import number
from toolkit.pixels import Images


@dataclass(frozen=True)
class Fmn:
    """Takes gradient steps in a ball around the probe that shrinks after success and grows after failure.

    Until the first success, the ball reaches at least to the linearized boundary. Afterwards, each step changes the
    radius by the share `gamma`, which decreases along half a cosine. So does the length of the steps, which in L1
    decreases by the same share each time.

    Attributes:
        name: the name of the attack.
        norm: the norm of the ball, which is made as small as possible.
        steps: the number of steps.
        step: the L2 length of the first step, in any norm; it decreases to a hundredth, in L1 to a sixtieth.
        gamma: the first relative change of the radius; it decreases to a fiftieth.
    """

    needs: ClassVar[Needs] = "gradient"
    name: str = "fmn"
    norm: Convex = "l2"
    steps: int = number(100, 1, 100_000)
    step: float = number(1.0, 1e-6, 100)
    gamma: float = number(0.05, 0, 0.99)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(minimizes=self.norm, steps=self.steps, restarts=1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; see `nearest_success`."""
        radius = np.full(len(task), np.inf)

        def move(at: Position) -> Images:
            gamma = cosine(self.gamma, self.gamma / 50, at.share)
            linear, grown = at.norm + to_boundary(task, at, self.norm), radius[at.rows] * (1 + gamma)
            # Clipping may shorten every step, so that the linear radius alone would never suffice. It must also grow.
            before = np.where(np.isfinite(grown), np.maximum(linear, grown), linear)
            outward = np.where(np.isfinite(at.nearest), grown, before)
            inward = np.minimum(radius[at.rows] * (1 - gamma), at.nearest)
            radius[at.rows] = np.where(at.there, inward, outward)
            moved = at.delta + np.float32(self._length(at.share)) * ascending("l2", at.gradient)
            return shrink(self.norm, moved, radius[at.rows])

        return nearest_success(model, task, self.steps, move, self.norm)

    def _length(self, share: float) -> float:
        """The length of a step, for a share of the steps that are done.

        The ball of L1 keeps few values of a step, and how few differs between networks: steps of 3 found the smallest
        norms on one network, and steps of 1 on another. A length that decreases evenly comes past both.
        """
        return self.step / 60**share if self.norm == "l1" else cosine(self.step, self.step / 100, share)


ATTACK = Fmn()
