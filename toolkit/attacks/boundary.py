"""The decision-based boundary attack (Brendel, Rauber and Bethge 2018, arXiv:1712.04248, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.ladder import CARRY_RUNS, finish
from toolkit.attacks.norms import per_image, sizes
from toolkit.attacks.queries import Queries, find_starts
from toolkit.parameters import number
from toolkit.pixels import Bools, Images

# The ranges of success rates that the authors aim for. At a flat boundary half of the orthogonal steps succeed.
_TURNED, _APPROACHED = (0.2, 0.5), (0.1, 0.25)
# Every this many steps, the orthogonal step is tried alone, which shows how curved the boundary is.
_EVERY = 5


@dataclass(frozen=True)
class Boundary:
    """Walks randomly along the decision boundary toward the clean probe, with decisions only.

    Each step moves around the clean probe at the same distance, and then toward it. Each pair needs a start (see
    `find_starts`), and pairs without a start fail. Some queries are reserved for rounding the result to 8 bits.

    Attributes:
        budget: the number of queries per pair.
        around: the first length of the orthogonal steps, as a share of the distance to the clean probe.
        toward: the first length of the steps toward the clean probe, as a share of the distance to it.
        trials: the number of steps after which a length is adapted to the rate of successes.
        adaptation: the factor by which a length is adapted.
    """

    name: ClassVar[str] = "boundary"
    needs: ClassVar[Needs] = "runtime"
    budget: int = number(1000, 100, 10_000_000)
    around: float = number(0.05, 1e-9, 1)
    toward: float = number(0.05, 1e-9, 0.5)
    trials: int = number(10, 1, 10_000)
    adaptation: float = number(1.5, 1.001, 10)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(budget=self.budget, minimizes="l2")

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs leave the batch when their queries are used up."""
        queries = Queries(model, task, self.budget - CARRY_RUNS)
        probes, success = find_starts(queries)
        started = np.flatnonzero(success)
        around = _Length(len(task), self.around, 1.0, _TURNED, self)
        toward = _Length(len(task), self.toward, 0.5, _APPROACHED, self)
        for k in range(self.budget):
            alone = k % _EVERY == 0
            rows = queries.affording(started, 2)  # a combined step needs only one of the two
            if not len(rows):
                break
            turned = self._turn(task, rows, probes[rows], around.of[rows])
            if alone:
                there = queries.succeeds(rows, np.clip(turned, 0, 1))
                around.count(rows, there)
                rows, turned = rows[there], turned[there]
            pull = per_image(toward.of[rows])
            candidates = np.clip(turned + pull * (task.probes[rows] - turned), 0, 1)
            there = queries.succeeds(rows, candidates)
            if alone:
                toward.count(rows, there)
            nearer = sizes("l2", candidates - task.probes[rows]) < sizes("l2", probes[rows] - task.probes[rows])
            probes[rows[there & nearer]] = candidates[there & nearer]
        return finish(model, task, probes, success, queries.spent)

    def _turn(self, task: Task, rows: NDArray[np.intp], probes: Images, share: NDArray[np.float64]) -> Images:
        """Take a random step orthogonal to the direction of the clean probe, at the same distance from it."""
        shape = task.probes.shape[1:]
        step = np.stack([task.generators[row].standard_normal(shape, dtype=np.float32) for row in rows])
        away = probes - task.probes[rows]
        far = sizes("l2", away)
        axis = away / per_image(np.maximum(far, 1e-12))
        step -= axis * np.sum(step * axis, axis=(1, 2, 3), keepdims=True)
        turned = away + per_image(share * far / np.maximum(sizes("l2", step), 1e-12)) * step
        return np.asarray(task.probes[rows] + turned * per_image(far / np.maximum(sizes("l2", turned), 1e-12)))


class _Length:
    """The lengths of one kind of step, for each pair. They are adapted to keep the success rate in a range."""

    def __init__(self, pairs: int, first: float, largest: float, wanted: tuple[float, float], attack: Boundary) -> None:
        self.of = np.full(pairs, first)
        self._tried, self._hits = np.zeros(pairs, np.int64), np.zeros(pairs, np.int64)
        self._largest, self._wanted, self._attack = largest, wanted, attack

    def count(self, rows: NDArray[np.intp], there: Bools) -> None:
        """Count steps and successes, and adapt the lengths of pairs with enough steps."""
        self._tried[rows] += 1
        self._hits[rows] += there
        full = rows[self._tried[rows] >= self._attack.trials]
        rate = self._hits[full] / self._attack.trials
        low, high = self._wanted
        factor = np.where(rate > high, self._attack.adaptation, np.where(rate < low, 1 / self._attack.adaptation, 1.0))
        self.of[full] = np.minimum(self.of[full] * factor, self._largest)
        self._tried[full] = self._hits[full] = 0


ATTACK = Boundary()
