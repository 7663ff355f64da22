"""The L2 attack of Carlini and Wagner (2017, arXiv:1608.04644, section VI-A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent, clearly_reached
from toolkit.attacks.ladder import finish
from toolkit.attacks.norms import per_image, sizes
from toolkit.parameters import number
from toolkit.pixels import Bools, Images

Values = NDArray[np.float64]

# Adam's constants (Kingma & Ba 2015, algorithm 1).
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8
# The first weight of the margin, relative to the weight for which both terms balance at the linearized boundary.
_FIRST_WEIGHT = 1.5
# A success is progress if its norm is smaller by this share. A search ends after this many steps without progress.
_PROGRESS, _PATIENCE = 0.005, 7


class _Search:
    """The state of each pair's search: the smallest success so far in tanh space, and the weight of the margin."""

    def __init__(self, task: Task) -> None:
        # In tanh space the values 0 and 1 are at infinity. The factor keeps them finite, so that they can change.
        self.clean = np.arctanh((2 * task.probes - 1) * np.float32(0.999999))
        self.best, self.nearest = self.clean.copy(), np.full(len(task), np.inf)
        self.weight, self.low, self.high = np.zeros(len(task)), np.zeros(len(task)), np.full(len(task), np.inf)
        self.step = np.zeros(len(task))
        self.evaluations = np.zeros(len(task), np.int64)

    def keep(self, rows: NDArray[np.intp], w: Images, norm: Values, there: Bools) -> Bools:
        """Store smaller successes. Return which of them are progress."""
        progress = there & (norm < self.nearest[rows] * (1 - _PROGRESS))
        better = there & (norm < self.nearest[rows])
        self.best[rows[better]], self.nearest[rows[better]] = w[better], norm[better]
        return progress

    def bisect(self, rows: NDArray[np.intp], hit: Bools) -> None:
        """Set the next weight to the middle of the largest failed and the smallest successful one.

        Without a success so far, multiply the weight by ten.
        """
        self.high[rows[hit]], self.low[rows[~hit]] = self.weight[rows[hit]], self.weight[rows[~hit]]
        bracketed = np.isfinite(self.high[rows])
        middle = (self.low[rows] + np.where(bracketed, self.high[rows], 0)) / 2
        self.weight[rows] = np.where(bracketed, middle, 10 * self.weight[rows])


@dataclass(frozen=True)
class CarliniWagner:
    """Minimizes the squared L2 norm plus c times the missing margin in tanh space, with Adam.

    A binary search over c for each pair keeps the smallest success. In contrast to the paper's fixed values, the pair's
    first gradient sets the start value of c and the learning rate. The first c balances both terms at the linearized
    boundary. The first step of Adam is `reach` times as long as the distance to this boundary. The learning rate
    follows half a cosine. A search starts from the best success and ends without further progress.

    Attributes:
        searches: the number of values of c.
        steps: the largest number of Adam steps for each c.
        reach: the length of the first step, relative to the distance to the linearized boundary.
    """

    name: ClassVar[str] = "carlini-wagner"
    needs: ClassVar[Needs] = "gradient"
    searches: int = number(3, 1, 100)
    steps: int = number(50, 1, 100_000)
    reach: float = number(1.0, 1e-6, 1000)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(minimizes="l2", steps=self.steps, restarts=1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs leave a search when it converges. Pairs without a gradient fail."""
        search, rows = _Search(task), np.arange(len(task))
        for turn in range(self.searches):
            hit = np.zeros(len(task), np.bool_)
            self._descend(model, task, rows, search, hit, first=turn == 0)
            rows = rows[search.weight[rows] > 0]
            search.bisect(rows, hit[rows])
        success = np.isfinite(search.nearest)
        return finish(model, task, (np.tanh(search.best) + 1) / 2, success, search.evaluations)

    def _descend(
        self, model: Gradients, task: Task, rows: NDArray[np.intp], search: _Search, hit: Bools, *, first: bool
    ) -> None:
        """Run Adam once for the pairs `rows`. Set `hit` for successful pairs."""
        w, mean, square = search.best.copy(), np.zeros_like(search.clean), np.zeros_like(search.clean)
        stale = np.zeros(len(task), np.int64)
        for k in range(self.steps):
            if not len(rows):
                return
            tanh = np.tanh(w[rows])
            probes, slope = (tanh + 1) / 2, (1 - np.square(tanh)) / 2
            margin, gradient = ascent(model, task, rows, probes)
            search.evaluations[rows] += 1
            if first and k == 0:
                length = sizes("l2", gradient)
                weight = 2 * _FIRST_WEIGHT * np.abs(margin) / np.maximum(length, 1e-30) ** 2
                search.weight[rows] = np.where(length > 0, np.maximum(weight, 1e-12), 0)
                search.step[rows] = self.reach * np.abs(margin) / np.maximum(length * sizes("l2", slope), 1e-30)
            delta, there = probes - task.probes[rows], clearly_reached(task, rows, margin)
            hit[rows] |= there
            progress = search.keep(rows, w[rows], sizes("l2", delta), there)
            stale[rows] = np.where(progress, 0, stale[rows] + 1)
            pull = per_image(np.where(there, 0, search.weight[rows]))
            down = (2 * delta - pull * gradient) * slope
            mean[rows] = _BETA1 * mean[rows] + (1 - _BETA1) * down
            square[rows] = _BETA2 * square[rows] + (1 - _BETA2) * np.square(down)
            rate = search.step[rows] * (0.02 + 0.49 * (1 + np.cos(np.pi * k / self.steps))) / (1 - _BETA1 ** (k + 1))
            spread = np.sqrt(square[rows] / np.float32(1 - _BETA2 ** (k + 1))) + np.float32(_TINY)
            w[rows] -= per_image(rate) * mean[rows] / spread
            going = (stale[rows] < _PATIENCE) | ~np.isfinite(search.nearest[rows])
            rows = rows[going & (search.weight[rows] > 0)]


ATTACK = CarliniWagner()
