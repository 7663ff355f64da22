"""Projected gradient ascent in the Linf norm (Madry et al. 2018, arXiv:1706.06083, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, ascent, finish, reached
from toolkit.attacks.norms import Ball, Norm, ascending
from toolkit.defenses.parameters import number


@dataclass(frozen=True)
class Pgd:
    """Steepest steps of the norm `step`, each projected back into the ball of radius `epsilon`.

    The attack asks whether the ball holds a success, not for the nearest one: a pair is done with the first.
    The first start is the probe itself, which leaves room in the ball for what rounding to 8 bits undoes; the
    others are drawn uniformly from the ball. The loss is the distance: on two classes it rises exactly where
    the paper's cross-entropy does.
    """

    needs: ClassVar[Needs] = "gradient"
    name: str = "pgd"
    norm: Norm = "linf"
    epsilon: float = number(8 / 255, 1e-6, 1000)
    steps: int = number(40, 1, 100_000)
    step: float = number(2 / 255, 1e-6, 1000)
    restarts: int = number(1, 1, 1000)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; solved pairs leave the batch, and until the next start those without a gradient."""
        ball = Ball(self.norm, self.epsilon)
        probes = task.probes.copy()
        success = np.zeros(len(task), np.bool_)
        evaluations = np.zeros(len(task), np.int64)
        for start in range(self.restarts):
            open_ = np.flatnonzero(~success)
            for row in open_ if start else ():
                probes[row] += ball.draw(task.generators[row], probes.shape[1:])
            probes[open_] = ball.project(task.probes[open_], probes[open_])
            # One evaluation more than steps: the last step is judged as well.
            for _ in range(self.steps + 1):
                if not len(open_):
                    break
                margin, gradient = ascent(model, task, open_, probes[open_])
                evaluations[open_] += 1
                there = reached(task, open_, margin)
                success[open_[there]] = True
                going = ~there & gradient.any(axis=(1, 2, 3))
                open_ = open_[going]
                moved = probes[open_] + np.float32(self.step) * ascending(self.norm, gradient[going])
                probes[open_] = ball.project(task.probes[open_], moved)
            probes[~success] = task.probes[~success]
        return finish(model, task, probes, success, evaluations, ball)


ATTACK = Pgd()
