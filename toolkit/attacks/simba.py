"""SimBA, the simple black-box attack (Guo et al. 2019, arXiv:1905.07121, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Images, Needs, Task, reached, to_8bit, to_unit
from toolkit.attacks.queries import Queries, craft_8bit
from toolkit.defenses.parameters import number


def _cosines(side: int) -> Images:
    """The orthonormal cosines (side, side) of the DCT-II, low frequencies first."""
    angle = np.pi * np.arange(side)[:, None] * (np.arange(side) + 0.5) / side
    return (np.cos(angle) * np.sqrt(np.where(np.arange(side) == 0, 1, 2) / side)[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Simba:
    """Adds or subtracts one vector of an orthonormal basis after another, wherever that brings the goal nearer.

    The vectors come in random order and none comes twice, so that k of them make an L2 norm of step sqrt(k).
    Queries are rounded to 8 bits; what rounding hides of a sum stays in it and counts with later vectors.

    Attributes:
        basis: single values, or cosines of the lowest frequencies.
        frequencies: the share of frequencies along each side that are low (section 3.3).
        step: length of a vector.
        budget: queries per pair.
    """

    name: ClassVar[str] = "simba"
    needs: ClassVar[Needs] = "runtime"
    basis: Literal["dct", "pixel"] = "dct"
    frequencies: float = number(0.125, 1e-3, 1)
    step: float = number(0.2, 1e-6, 1000)
    budget: int = number(500, 1, 10_000_000)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; pairs leave when solved, out of queries or out of vectors."""
        _, height, width, channels = task.probes.shape
        dct, share = self.basis == "dct", self.frequencies if self.basis == "dct" else 1.0
        tall, wide = (_cosines(side) if dct else np.eye(side, dtype=np.float32) for side in (height, width))
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
        """Basis vectors (M, H, W, 3) of numbers (M,)."""
        rows, columns, colors = np.unravel_index(chosen, counts)
        plane = tall[rows][:, :, None] * wide[columns][:, None, :]
        return plane[..., None] * np.eye(counts[2], dtype=np.float32)[colors][:, None, None, :]


ATTACK = Simba()
