"""Projected gradient ascent in the Linf norm (Madry et al. 2018, arXiv:1706.06083, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent, reached
from toolkit.attacks.ladder import Found, finish
from toolkit.attacks.norms import Ball, Norm, ascending
from toolkit.parameters import number


@dataclass(frozen=True)
class Pgd:
    """Takes gradient steps, and projects each of them back into a ball.

    The attack searches for any success in the ball, not for the nearest one. A pair is done after its first success
    that survives rounding to 8 bits. The first start is the clean probe. Further starts are drawn uniformly from the
    ball. The loss is the distance. With two classes, it rises exactly where the paper's
    cross-entropy rises.

    Attributes:
        name: the name of the attack.
        norm: the norm of the ball and of the steps.
        epsilon: the radius of the ball, in units of the pixel range.
        steps: the number of steps per start.
        step: the norm of one step.
        restarts: the number of starts.
    """

    needs: ClassVar[Needs] = "gradient"
    name: str = "pgd"
    norm: Norm = "linf"
    epsilon: float = number(8 / 255, 1e-6, 1000)
    steps: int = number(40, 1, 100_000)
    step: float = number(2 / 255, 1e-6, 1000)
    restarts: int = number(1, 1, 1000)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(norm=self.norm, epsilon=self.epsilon, steps=self.steps, restarts=self.restarts)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Solved pairs leave the batch. Pairs without a gradient leave it until the next start."""
        ball = Ball(self.norm, self.epsilon)
        found = Found.nothing(task)
        for start in range(self.restarts):
            open_, probes = np.flatnonzero(~found.done), task.probes.copy()
            for row in open_ if start else ():
                probes[row] += ball.draw(task.generators[row], probes.shape[1:])
            probes[open_] = ball.project(task.probes[open_], probes[open_])
            # One more evaluation than steps, because the result of the last step is evaluated as well.
            for _ in range(self.steps + 1):
                if not len(open_):
                    break
                margin, gradient = ascent(model, task, open_, probes[open_])
                found.evaluations[open_] += 1
                there = open_[reached(task, open_, margin)]
                found.take(model, task, there, probes[there], ball)
                going = ~found.done[open_] & gradient.any(axis=(1, 2, 3))
                open_ = open_[going]
                moved = probes[open_] + np.float32(self.step) * ascending(self.norm, gradient[going])
                probes[open_] = ball.project(task.probes[open_], moved)
        return finish(model, task, found.probes, found.success, found.evaluations, ball)


ATTACK = Pgd()
