"""SimBA, the simple black-box attack (Guo et al. 2019, arXiv:1905.07121, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, reached
from toolkit.attacks.queries import Queries, craft_8bit
from toolkit.attacks.resampling import cosines
from toolkit.parameters import number
from toolkit.pixels import Images, to_8bit, to_unit


@dataclass(frozen=True)
class Simba:
    """Adds or subtracts random vectors of an orthonormal basis, and keeps changes that increase the margin.

    No vector is used twice, so that k vectors give an L2 norm of step sqrt(k). Queries are rounded to 8 bits. The sum
    of the vectors is not rounded, so that small changes add up.

    Attributes:
        basis: `pixel` for single values, `dct` for cosines of the lowest frequencies.
        frequencies: the share of frequencies along each side that is used (section 3.3).
        step: the length of a vector.
        budget: the number of queries per pair.
    """

    name: ClassVar[str] = "simba"
    needs: ClassVar[Needs] = "runtime"
    basis: Literal["dct", "pixel"] = "dct"
    frequencies: float = number(0.125, 1e-3, 1)
    step: float = number(0.2, 1e-6, 1000)
    budget: int = number(500, 1, 10_000_000)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(budget=self.budget, graded=True)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Solved pairs and pairs without queries or vectors left leave the batch."""
        _, height, width, channels = task.probes.shape
        dct, share = self.basis == "dct", self.frequencies if self.basis == "dct" else 1.0
        tall, wide = (cosines(side) if dct else np.eye(side, dtype=np.float32) for side in (height, width))
        counts = max(1, round(height * share)), max(1, round(width * share)), channels
        order = [generator.permutation(int(np.prod(counts)))[: self.budget] for generator in task.generators]
        queries = Queries(model, task, self.budget)
        probes = task.probes.copy()
        margin = np.full(len(task), -np.inf)
        success = np.zeros(len(task), np.bool_)
        rows = queries.affording(np.arange(len(task)), 1)
        margin[rows] = queries.margins(rows, probes[rows])
        success[rows] = reached(task, rows, margin[rows])
        for k in range(len(order[0])):
            rows = queries.affording(np.flatnonzero(~success), 1)
            if not len(rows):
                break
            vectors = self._vectors(np.array([order[row][k] for row in rows]), counts, tall, wide)
            for sign in (1, -1):
                able = queries.spent[rows] < self.budget
                rows, vectors = rows[able], vectors[able]
                moved = np.clip(probes[rows] + np.float32(sign * self.step) * vectors, 0, 1)
                new = queries.margins(rows, to_unit(to_8bit(moved)))
                better = new > margin[rows]
                nearer = rows[better]
                probes[nearer], margin[nearer] = moved[better], new[better]
                success[nearer] = reached(task, nearer, new[better])
                rows, vectors = rows[~better], vectors[~better]
        return craft_8bit(task, to_unit(to_8bit(probes)), success, queries.spent)

    @staticmethod
    def _vectors(chosen: NDArray[np.intp], counts: tuple[int, int, int], tall: Images, wide: Images) -> Images:
        """Return the basis vectors (M, H, W, 3) with the indices `chosen` (M,)."""
        rows, columns, colors = np.unravel_index(chosen, counts)
        plane = tall[rows][:, :, None] * wide[columns][:, None, :]
        return plane[..., None] * np.eye(counts[2], dtype=np.float32)[colors][:, None, None, :]


ATTACK = Simba()
