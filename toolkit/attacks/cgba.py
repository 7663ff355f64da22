"""The decision-based attack CGBA in L2, in a subspace of low frequencies (Reza et al. 2023, arXiv:2308.03163)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.ladder import CARRY_RUNS, finish
from toolkit.attacks.norms import ascending, per_image, sizes
from toolkit.attacks.queries import Queries, bisect, estimate_normal, find_starts
from toolkit.attacks.resampling import apply, cosines
from toolkit.parameters import number
from toolkit.pixels import Float, Images

# Fewer samples than this are not enough to estimate a normal.
_FEWEST = 20


@dataclass(frozen=True)
class Cgba:
    """Moves along arcs between the decision boundary and the clean probe, with decisions only.

    Each round estimates the boundary's normal from samples of low frequencies. It then bisects on the half circle
    whose diameter reaches from the image at the boundary to the clean probe, in the plane of the normal. Where the
    boundary is flat and the normal exact, the arc meets the boundary at the point nearest to the clean probe (Thales).
    Low frequencies are a subspace with few dimensions, so that few samples suffice. Each pair needs a start (see
    `find_starts`), and pairs without a start fail. Some queries are reserved for rounding the result to 8 bits.

    Attributes:
        budget: the number of queries per pair.
        samples: the number of samples for the first normal. It grows with the square root of the round's number.
        frequencies: the share of frequencies along each side that is used.
        radius: the distance of the samples, as a share of the distance to the clean probe. The paper's fixed distance
            is for 64-bit images; 32-bit embeddings cannot resolve it.
        bisections: the number of halvings of an arc. The angle that is left must be small beside the samples' radius.
    """

    name: ClassVar[str] = "cgba"
    needs: ClassVar[Needs] = "runtime"
    budget: int = number(1000, 100, 10_000_000)
    samples: int = number(30, 1, 10_000)
    frequencies: float = number(0.25, 1e-3, 1)
    radius: float = number(0.01, 1e-6, 1)
    bisections: int = number(12, 1, 50)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(budget=self.budget, minimizes="l2")

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs leave the batch when their queries are used up."""
        queries = Queries(model, task, self.budget - CARRY_RUNS)
        probes, success = find_starts(queries)
        _, height, width, _ = task.probes.shape
        tall, wide = (cosines(side)[: max(1, round(side * self.frequencies))].T for side in (height, width))
        rows = queries.affording(np.flatnonzero(success), self.bisections)
        # Without a normal, the arc is the line to the clean probe.
        probes[rows] = self._around(queries, rows, probes[rows], np.zeros_like(probes[rows]))
        for t in range(1, self.budget + 1):
            rows = queries.affording(rows, _FEWEST + self.bisections)
            distance = sizes("l2", probes[rows] - task.probes[rows])
            rows, distance = rows[distance > 0], distance[distance > 0]
            if not len(rows):
                break
            normals = np.zeros_like(probes[rows])
            for i, row in enumerate(rows):
                left = queries.budget - int(queries.spent[row]) - self.bisections
                count = min(round(self.samples * np.sqrt(t)), left)
                noise = self._smooth(task.generators[row], count, tall, wide)
                normals[i] = estimate_normal(queries, row, probes[row], noise, self.radius * distance[i])
            probes[rows] = self._around(queries, rows, probes[rows], normals)
        return finish(model, task, probes, success, queries.spent)

    @staticmethod
    def _smooth(generator: np.random.Generator, count: int, tall: Images, wide: Images) -> Images:
        """Draw unit vectors (K, H, W, 3) of low frequencies: normal coefficients of the columns (H, A) and (W, B)."""
        drawn = generator.standard_normal((count, tall.shape[1], wide.shape[1], 3), dtype=np.float32)
        noise = apply(tall[None], wide[None], drawn)
        return noise * per_image(1 / sizes("l2", noise))

    def _around(self, queries: Queries, rows: NDArray[np.intp], images: Images, normals: Images) -> Images:
        """Return the last images that reach the goal on the arcs from `images` toward the clean probes."""
        clean = queries.task.probes[rows]
        away = images - clean
        far = sizes("l2", away)
        along = ascending("l2", away)
        side = ascending("l2", normals - along * np.sum(normals * along, axis=(1, 2, 3), keepdims=True))

        def arc(share: Float) -> Images:
            angle = (1 - share) * np.pi / 2
            turned = per_image(np.cos(angle)) * along + per_image(np.sin(angle)) * side
            return np.clip(clean + per_image(far * np.cos(angle)) * turned, 0, 1)

        return bisect(queries, rows, images, arc, self.bisections)


ATTACK = Cgba()
