"""HopSkipJump in L2, by decisions alone (Chen et al. 2020, arXiv:1904.02144, algorithms 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import CARRY_RUNS, Crafted, Gradients, Images, Needs, Task, finish
from toolkit.attacks.norms import ascending, per_image, sizes
from toolkit.attacks.queries import Queries, find_starts
from toolkit.defenses.parameters import number

# Halvings of a step before a pair keeps its place.
_HALVINGS = 8
# Fewer samples than this say too little of a gradient.
_FEWEST = 20


@dataclass(frozen=True)
class HopSkipJump:
    """From an image at the goal: bisect to the boundary, estimate its normal there, step outward, and again.

    Needs a start (see `find_starts`); pairs without one fail. So many queries are kept back as it may take to
    round the result to 8 bits.

    Attributes:
        budget: queries per pair.
        samples: for the first normal; they grow with the root of the number of rounds.
        gamma: scales both how exactly the boundary is found and how far the samples are from it. The paper's 1
            is for 64-bit images: embeddings in 32 bits cannot resolve it.
    """

    name: ClassVar[str] = "hop-skip-jump"
    needs: ClassVar[Needs] = "runtime"
    budget: int = number(1000, 100, 10_000_000)
    samples: int = number(100, 1, 10_000)
    gamma: float = number(100.0, 1e-3, 1e6)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; pairs leave when their queries are spent."""
        queries = Queries(model, task, self.budget - CARRY_RUNS)
        far, started = find_starts(queries)
        best = far.copy()
        success = np.zeros(len(task), np.bool_)
        success[started] = True
        size = task.probes[0].size
        # A tolerance of gamma d^(-3/2), as a share of the way to the clean probe (section V-B).
        bisections = max(1, int(np.ceil(np.log2(size**1.5 / self.gamma))))
        rows = started
        for t in range(1, self.budget + 1):
            rows = queries.affording(rows, bisections)
            if not len(rows):
                break
            best[rows] = self._bisect(queries, rows, far[rows], bisections)
            # The step at the end of a round is worth its queries only if the next round can begin.
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
        """The image nearest to the clean probe, on the way from `far` to it, that still reaches the goal."""
        clean = queries.task.probes[rows]
        low, high = np.zeros(len(rows)), np.ones(len(rows))
        for _ in range(times):
            middle = (low + high) / 2
            there = queries.succeeds(rows, clean + per_image(middle) * (far - clean))
            low, high = np.where(there, low, middle), np.where(there, middle, high)
        return clean + per_image(high) * (far - clean)

    @staticmethod
    def _normal(queries: Queries, row: int, image: Images, radius: float, count: int) -> Images:
        """The direction from the boundary into the goal, from decisions around `image` (equation 16)."""
        noise = queries.task.generators[row].standard_normal((count, *image.shape), dtype=np.float32)
        noise *= per_image(1 / sizes("l2", noise))
        around = np.clip(image + np.float32(radius) * noise, 0, 1)
        moved = (around - image) / np.float32(radius)
        there = np.where(queries.succeeds(np.full(count, row), around), 1.0, -1.0)
        # The mean is the variance-reducing baseline, of no use where all agree.
        baseline = 0.0 if np.all(there == there[0]) else there.mean()
        normal = np.tensordot((there - baseline).astype(np.float32), moved, axes=1)[None]
        return ascending("l2", normal)[0]

    @staticmethod
    def _step(
        queries: Queries, rows: NDArray[np.intp], images: Images, normals: Images, length: NDArray[np.float64]
    ) -> Images:
        """The first of ever shorter steps along the normal that stays at the goal; else no step."""
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
