"""APGD: projected gradient ascent with an adaptive step size (Croce & Hein 2020, arXiv:2003.01690, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent, reached
from toolkit.attacks.ladder import Found, finish
from toolkit.attacks.norms import Ball, Norm, ascending, per_image
from toolkit.parameters import number
from toolkit.pixels import Images


def checkpoints(steps: int) -> list[int]:
    """Return the steps at which the step size is checked (section 3.2). Their distances decrease."""
    at, past = [0.0, 0.22], [0]
    while at[-1] <= 1:
        # Round first, because 0.57 * 100 is slightly above 57 in binary.
        past.append(int(np.ceil(round(at[-1] * steps, 6))))
        at.append(at[-1] + max(at[-1] - at[-2] - 0.03, 0.06))
    return past


@dataclass
class _Climb:
    """The state of the ascent, for each pair.

    Attributes:
        x, before: the current and the previous image.
        best: the image with the largest margin so far.
        gradient, best_gradient: the gradients at `x` and at `best`.
        margin, highest: the margins of `x` and of `best`.
        length: the step size.
        rises: how many steps since the last checkpoint increased the margin.
        highest_then: the value of `highest` at the last checkpoint.
        shortened_then: whether the step size was halved at the last checkpoint.
    """

    x: Images
    before: Images
    best: Images
    gradient: Images
    best_gradient: Images
    margin: NDArray[np.float64]
    highest: NDArray[np.float64]
    length: NDArray[np.float64]
    rises: NDArray[np.int64]
    highest_then: NDArray[np.float64]
    shortened_then: NDArray[np.bool_]

    def shorten(self, rows: NDArray[np.intp], least: float) -> None:
        """Halve the step size of pairs that no longer make progress, and return them to their best image.

        Args:
            rows: the pairs to check.
            least: the smallest number of rises since the last checkpoint that counts as progress.
        """
        stuck = ~self.shortened_then[rows] & (self.highest[rows] <= self.highest_then[rows])
        halved = (self.rises[rows] < least) | stuck
        back = rows[halved]
        self.length[back] /= 2
        self.x[back], self.gradient[back] = self.best[back], self.best_gradient[back]
        self.before[back], self.margin[back] = self.best[back], self.highest[back]
        self.shortened_then[rows] = halved
        self.highest_then[rows], self.rises[rows] = self.highest[rows], 0


@dataclass(frozen=True)
class Apgd:
    """Takes gradient steps with momentum in a ball, and halves the step size at checkpoints without progress.

    The step size starts at twice `epsilon`. The loss is the margin of the distance. A pair is done after its first
    success that survives rounding to 8 bits. The first start is the clean probe. Further starts
    are drawn uniformly from the ball.

    Attributes:
        name: the name of the attack.
        norm: the norm of the ball.
        epsilon: the radius of the ball, in units of the pixel range.
        steps: the number of steps per start.
        momentum: the share of the new step, as opposed to the previous direction (alpha).
        rho: the share of steps between two checkpoints that must increase the margin.
        restarts: the number of starts, until the first success.
    """

    needs: ClassVar[Needs] = "gradient"
    name: str = "apgd"
    norm: Norm = "linf"
    epsilon: float = number(8 / 255, 1e-6, 1000)
    steps: int = number(100, 1, 100_000)
    momentum: float = number(0.75, 0, 1)
    rho: float = number(0.75, 0, 1)
    restarts: int = number(1, 1, 1000)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(norm=self.norm, epsilon=self.epsilon, steps=self.steps, restarts=self.restarts)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair from `restarts` starts. Solved pairs leave the batch."""
        found, ball = Found.nothing(task), Ball(self.norm, self.epsilon)
        for start in range(self.restarts):
            open_, starts = np.flatnonzero(~found.done), task.probes.copy()
            if not len(open_):
                break
            for row in open_ if start else ():
                starts[row] += ball.draw(task.generators[row], starts.shape[1:])
            self._climb(model, task, open_, ball.project(task.probes, starts), found)
        return finish(model, task, found.probes, found.success, found.evaluations, ball)

    def _climb(
        self,
        model: Gradients,
        task: Task,
        open_: NDArray[np.intp],
        x: Images,
        found: Found,
    ) -> None:
        """Run one ascent of the pairs `open_` from the images `x`, and take what it finds."""
        ball, n = Ball(self.norm, self.epsilon), len(task)
        s = _Climb(
            x, x.copy(), x.copy(), np.zeros_like(x), np.zeros_like(x), np.zeros(n), np.full(n, -np.inf),
            np.full(n, 2 * self.epsilon), np.zeros(n, np.int64), np.full(n, -np.inf), np.zeros(n, np.bool_),
        )  # fmt: skip
        checks, momentum = checkpoints(self.steps), self.momentum
        for k in range(self.steps + 1):
            margin, s.gradient[open_] = ascent(model, task, open_, s.x[open_])
            found.evaluations[open_] += 1
            there = open_[reached(task, open_, margin)]
            found.take(model, task, there, s.x[there], ball)
            s.rises[open_] += (margin > s.margin[open_]) & (k > 0)
            s.margin[open_] = margin
            better = open_[margin > s.highest[open_]]
            s.highest[better], s.best[better], s.best_gradient[better] = (
                s.margin[better],
                s.x[better],
                s.gradient[better],
            )
            open_ = open_[~found.done[open_] & s.gradient[open_].any(axis=(1, 2, 3))]
            if not len(open_):
                return
            if k == 0:
                s.highest_then[open_] = s.highest[open_]
            elif k in checks:
                s.shorten(open_, self.rho * (k - checks[checks.index(k) - 1]))
            clean, here = task.probes[open_], s.x[open_]
            ahead = here + per_image(s.length[open_]) * ascending(self.norm, s.gradient[open_])
            step = ball.project(clean, ahead) - here
            if k > 0:  # the first step has no previous direction
                step = np.float32(momentum) * step + np.float32(1 - momentum) * (here - s.before[open_])
            s.before[open_], s.x[open_] = here, ball.project(clean, here + step)


ATTACK = Apgd()
