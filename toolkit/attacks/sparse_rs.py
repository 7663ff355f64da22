"""Sparse-RS: few pixels, found by random search over scores (Croce et al. 2022, arXiv:2006.12834, the L0 version)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, reached
from toolkit.attacks.queries import Queries, craft_8bit
from toolkit.errors import InputError
from toolkit.parameters import number
from toolkit.pixels import Images

# After these shares of the budget, the share of exchanged pixels is divided by these numbers (as the authors' code:
# queries out of 10,000).
_LATER = np.array([0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]) / 10_000
_DIVISORS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)


@dataclass(frozen=True)
class SparseRS:
    """Gives a few pixels the extreme values of every channel, and exchanges some of them while this helps.

    Each query moves some of the changed pixels to other places with new colors, and keeps the move if it increases the
    margin. All colors are corners of the color cube, so that every query is an 8-bit image whose other pixels are the
    clean probe's.

    Attributes:
        pixels: the largest number of changed pixels.
        budget: the number of queries per pair.
        share: the share of the changed pixels that one query exchanges at first. It decreases with the number of
            queries, down to one pixel.
    """

    name: ClassVar[str] = "sparse-rs"
    needs: ClassVar[Needs] = "runtime"
    pixels: int = number(100, 1, 1_000_000)
    budget: int = number(1000, 1, 10_000_000)
    share: float = number(0.3, 1e-6, 1)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(budget=self.budget, graded=True)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Solved pairs leave the batch.

        Raises:
            InputError: the crop does not have more pixels than `pixels`.
        """
        height, width = task.probes.shape[1:3]
        if self.pixels >= height * width:
            raise InputError(
                f"{self.name}.pixels={self.pixels}: a crop has {height * width} pixels; choose a smaller number"
            )
        queries = Queries(model, task, self.budget)
        # The places of all pixels in an order whose first `pixels` are the changed ones.
        places = np.stack([generator.permutation(height * width) for generator in task.generators])
        probes, best = task.probes.copy(), np.full(len(task), -np.inf)
        success = np.zeros(len(task), np.bool_)
        rows = np.arange(len(task))
        for k in range(self.budget):
            rows = rows[~success[rows]]
            if not len(rows):
                break
            moved, exchanged = probes[rows], places[rows]
            for row, image, order in zip(rows, moved, exchanged, strict=True):
                self._propose(task.generators[row], image, task.probes[row], order, k)
            margin = queries.margins(rows, moved)
            better = margin > best[rows]
            nearer = rows[better]
            probes[nearer], best[nearer], places[nearer] = moved[better], margin[better], exchanged[better]
            success[rows] = reached(task, rows, margin)
        return craft_8bit(task, probes, success, queries.spent)

    def _propose(
        self, generator: np.random.Generator, image: Images, clean: Images, places: NDArray[np.intp], k: int
    ) -> None:
        """Change `image` (H, W, 3) and the order of its `places` (H*W,) for the query number `k`."""
        flat, original = image.reshape(-1, image.shape[2]), clean.reshape(-1, image.shape[2])
        count = self.pixels
        if k:
            divisor = _DIVISORS[np.count_nonzero(k > _LATER * self.budget)]
            unchanged = len(places) - self.pixels
            count = min(max(int(self.share / divisor * self.pixels), 1), unchanged)
            leave = generator.choice(self.pixels, count, replace=False)
            enter = self.pixels + generator.choice(unchanged, count, replace=False)
            flat[places[leave]] = original[places[leave]]
            places[leave], places[enter] = places[enter], places[leave]
            colored = places[leave]
        else:
            colored = places[:count]
        flat[colored] = generator.integers(2, size=(count, flat.shape[1])).astype(np.float32)


ATTACK = SparseRS()
