"""The decision-based attack HopSkipJump in L2 (Chen et al. 2020, arXiv:1904.02144, algorithms 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.ladder import CARRY_RUNS, finish
from toolkit.attacks.norms import per_image, sizes
from toolkit.attacks.queries import Queries, bisect, estimate_normal, find_starts
from toolkit.parameters import number
from toolkit.pixels import Images

# How often a step is halved before the pair keeps its image.
_HALVINGS = 8
# Fewer samples than this are not enough to estimate a gradient.
_FEWEST = 20


@dataclass(frozen=True)
class HopSkipJump:
    """Moves along the decision boundary with estimated normals, with decisions only.

    Each round bisects from a successful image to the boundary, estimates the boundary's normal, and takes a step along
    it. Each pair needs a start (see `find_starts`), and pairs without a start fail. Some queries are reserved for
    rounding the result to 8 bits.

    Attributes:
        budget: the number of queries per pair.
        samples: the number of samples for the first normal. It grows with the square root of the round's number.
        gamma: scales the tolerance of the bisection and the distance of the samples. The paper's value of 1 is for
            64-bit images; 32-bit embeddings cannot resolve it.
    """

    name: ClassVar[str] = "hop-skip-jump"
    needs: ClassVar[Needs] = "runtime"
    budget: int = number(1000, 100, 10_000_000)
    samples: int = number(100, 1, 10_000)
    gamma: float = number(100.0, 1e-3, 1e6)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(budget=self.budget, minimizes="l2")

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs leave the batch when their queries are used up."""
        queries = Queries(model, task, self.budget - CARRY_RUNS)
        far, success = find_starts(queries)
        best = far.copy()
        size = task.probes[0].size
        # The tolerance is gamma d^(-3/2), as a share of the distance to the clean probe (section V-B).
        bisections = max(1, int(np.ceil(np.log2(size**1.5 / self.gamma))))
        rows: NDArray[np.intp] = np.flatnonzero(success)
        for t in range(1, self.budget + 1):
            rows = queries.affording(rows, bisections)
            if not len(rows):
                break
            best[rows] = self._bisect(queries, rows, far[rows], bisections)
            # A step at the end of a round is useful only if queries are left for the next round's bisection.
            kept = _HALVINGS + bisections
            rows = queries.affording(rows, _FEWEST + kept)
            distance = sizes("l2", best[rows] - task.probes[rows])
            rows, distance = rows[distance > 0], distance[distance > 0]
            normal = np.zeros_like(task.probes)
            for row, radius in zip(rows, distance * min(self.gamma / size, 0.1), strict=True):
                count = min(round(self.samples * np.sqrt(t)), queries.budget - int(queries.spent[row]) - kept)
                normal[row] = self._normal(queries, row, best[row], radius, count)
            far[rows] = self._step(queries, rows, best[rows], normal[rows], distance / np.sqrt(t))
        return finish(model, task, best, success, queries.spent)

    @staticmethod
    def _bisect(queries: Queries, rows: NDArray[np.intp], far: Images, times: int) -> Images:
        """Return the image nearest to the clean probe that still reaches the goal, on the line from `far` to it."""
        clean = queries.task.probes[rows]
        return bisect(queries, rows, far, lambda share: clean + per_image(share) * (far - clean), times)

    @staticmethod
    def _normal(queries: Queries, row: int, image: Images, radius: float, count: int) -> Images:
        """Estimate the normal of the boundary from `count` decisions."""
        noise = queries.task.generators[row].standard_normal((count, *image.shape), dtype=np.float32)
        noise *= per_image(1 / sizes("l2", noise))
        return estimate_normal(queries, row, image, noise, radius)

    @staticmethod
    def _step(
        queries: Queries, rows: NDArray[np.intp], images: Images, normals: Images, length: NDArray[np.float64]
    ) -> Images:
        """Take a step along the normal, halved until the goal is still reached. If this fails, take no step."""
        result, length = images.copy(), length.copy()
        left = np.arange(len(rows))
        for _ in range(_HALVINGS):
            if not len(left):
                break
            moved = np.clip(images[left] + per_image(length[left]) * normals[left], 0, 1)
            there = queries.succeeds(rows[left], moved)
            result[left[there]] = moved[there]
            length[left] /= 2
            left = left[~there]
        return result


ATTACK = HopSkipJump()
