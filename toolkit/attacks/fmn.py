"""The fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.descent import Position, cosine, nearest_success, to_boundary
from toolkit.attacks.norms import Convex, ascending, per_image, shrink
from toolkit.parameters import number
from toolkit.pixels import Images


@dataclass(frozen=True)
class Fmn:
    """Takes gradient steps in a ball around the probe that shrinks after success and grows after failure.

    Until the first success, the ball reaches at least to the linearized boundary. Afterwards, each step changes the
    radius by the share `gamma`, which decreases along half a cosine. So does the length of the steps, which in L1
    decreases by the same share each time.

    A detector is steep where it notices a long step: seen from there, the linearized boundary is far beyond the nearest
    success. With a detector in L2, only the clean probe is linearized, and no step is longer than its distance to the
    boundary. (In the other norms that was tried, and reached fewer pairs.)

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
        radius, share_of_step = np.full(len(task), np.inf), np.ones(len(task))
        watched = np.isfinite(task.alarm) and self.norm == "l2"

        def move(at: Position) -> Images:
            if watched and at.share == 0:
                share_of_step[at.rows] = np.minimum(1, to_boundary(task, at) / self.step)
            gamma = cosine(self.gamma, self.gamma / 50, at.share)
            linear, grown = at.norm + to_boundary(task, at, self.norm), radius[at.rows] * (1 + gamma)
            # Clipping may shorten every step, so that the linear radius alone would never suffice. It must also grow.
            before = np.where(np.isfinite(grown), grown if watched else np.maximum(linear, grown), linear)
            outward = np.where(np.isfinite(at.nearest), grown, before)
            inward = np.minimum(radius[at.rows] * (1 - gamma), at.nearest)
            radius[at.rows] = np.where(at.there, inward, outward)
            length = per_image(self._length(at.share) * share_of_step[at.rows])
            moved = at.delta + length * ascending("l2", at.gradient)
            return shrink(self.norm, moved, radius[at.rows])

        return nearest_success(model, task, self.steps, move, self.norm)

    def _length(self, share: float) -> float:
        """The length of a step, for a share of the steps that are done.

        The ball of L1 keeps few values of a step, and how few differs between networks: steps of 3 found the smallest
        norms on one network, and steps of 1 on another. A length that decreases evenly comes past both.
        """
        return self.step / 60**share if self.norm == "l1" else cosine(self.step, self.step / 100, share)


ATTACK = Fmn()
