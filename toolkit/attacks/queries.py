"""Tools of attacks on a deployed verifier: queries within a budget, ladders, start images and decision boundaries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Runtime, Task, margins, reached
from toolkit.attacks.ladder import CandidateMaker, first_success
from toolkit.attacks.norms import ascending
from toolkit.pixels import Bools, Float, Images, to_8bit, to_unit

_AT_ONCE = 4
# The number of blends with noise to try for a start image.
_START_LEVELS = 20


class Queries:
    """Queries the model, and counts the queries of each pair.

    Attributes:
        model: the attacked model.
        task: the pairs.
        budget: the number of queries that each pair may use. The caller must check it with `affording`.
        spent: (N,), the number of queries used by each pair.
    """

    def __init__(self, model: Runtime, task: Task, budget: int) -> None:
        self.model, self.task, self.budget = model, task, budget
        self.spent = np.zeros(len(task), np.int64)

    def margins(self, rows: NDArray[np.intp], images: Images) -> NDArray[np.float64]:
        """Return the margins (M,) of images (M, H, W, 3) of the pairs `rows` (M,). A pair may occur several times.

        See `base.margins`.
        """
        np.add.at(self.spent, rows, 1)
        if not len(rows):
            return np.zeros(0)
        return margins(self.model, self.task, rows, images)

    def succeeds(self, rows: NDArray[np.intp], images: Images) -> Bools:
        """Return only the decisions (M,): whether images reach their goals. See `margins`."""
        return reached(self.task, rows, self.margins(rows, images))

    def affording(self, rows: NDArray[np.intp], cost: int) -> NDArray[np.intp]:
        """Return the pairs of `rows` that have at least `cost` queries left."""
        return rows[self.spent[rows] + cost <= self.budget]


def craft_ladder(model: Runtime, task: Task, rungs: int, make: CandidateMaker) -> Crafted:
    """Try the rungs of a ladder in order until the 8-bit form of a candidate reaches the goal.

    Every query is an 8-bit image, as a deployed verifier receives it.

    Args:
        model: the attacked model.
        task: the pairs.
        rungs: the number of rungs.
        make: makes the images.
    """

    def rounded(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
        return to_unit(to_8bit(make(rows, rungs)))

    everyone = np.arange(len(task))
    climb = first_success(model, task, everyone, np.tile(np.arange(rungs), (len(task), 1)), _AT_ONCE, rounded)
    success = climb.rung >= 0
    probes = task.probes.copy()
    if success.any():
        probes[success] = rounded(everyone[success], climb.rung[success])
    return craft_8bit(task, probes, success, climb.runs)


def craft_8bit(task: Task, probes: Images, success: Bools, spent: NDArray[np.int64]) -> Crafted:
    """Build the result of an attack that queries 8-bit images only. Its float and 8-bit results are equal."""
    probes = np.where(success[:, None, None, None], probes, task.probes)
    return Crafted(probes, success, to_8bit(probes), success, spent)


def noise_blends(task: Task, levels: int) -> CandidateMaker:
    """Return a ladder that blends each probe with its own uniform noise image in `levels` equal steps."""
    noise = np.stack([generator.random(task.probes.shape[1:], dtype=np.float32) for generator in task.generators])

    def blended(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
        share = ((rungs + 1) / levels).astype(np.float32)[:, None, None, None]
        return (1 - share) * task.probes[rows] + share * noise[rows]

    return blended


def find_starts(queries: Queries) -> tuple[Images, Bools]:
    """Find images that reach the goal, as starts for decision-based attacks.

    The start is the task's `start` if it reaches the goal. Otherwise, for dodging only, it is the first successful
    blend with noise. For impersonation, blending cannot help, because noise does not look like the other person.

    Returns:
        Images (N, H, W, 3), and whether each pair has a start (N,). Other pairs have their clean probe.
    """
    task = queries.task
    images, found = task.probes.copy(), np.zeros(len(task), np.bool_)
    blended = noise_blends(task, _START_LEVELS)
    if task.start is not None:
        rows = queries.affording(np.arange(len(task)), 1)
        found[rows] = queries.succeeds(rows, task.start[rows])
        images[found] = task.start[found]
    for rung in range(_START_LEVELS):
        rows = queries.affording(np.flatnonzero(~found & task.dodging), 1)
        if not len(rows):
            break
        candidates = blended(rows, np.full(len(rows), rung))
        there = queries.succeeds(rows, candidates)
        images[rows[there]], found[rows[there]] = candidates[there], True
    return images, found


def bisect(
    queries: Queries, rows: NDArray[np.intp], images: Images, path: Callable[[Float], Images], times: int
) -> Images:
    """Return the last images (M, H, W, 3) that reach the goal on the paths from `images` to the clean probes.

    Args:
        queries: the queries. Each pair spends `times` of them.
        rows: (M,), the pairs.
        images: (M, H, W, 3), images that reach the goal.
        path: returns the images (M, H, W, 3) at shares (M,) of the way, from 1 at `images` to 0 at the clean probes.
        times: the number of halvings.
    """
    low, high = np.zeros(len(rows)), np.ones(len(rows))
    for _ in range(times):
        middle = (low + high) / 2
        there = queries.succeeds(rows, path(middle))
        low, high = np.where(there, low, middle), np.where(there, middle, high)
    return np.where((high < 1)[:, None, None, None], path(high), images)


def estimate_normal(queries: Queries, row: int, image: Images, directions: Images, radius: float) -> Images:
    """Estimate the unit normal (H, W, 3) of the boundary, toward the goal, from decisions around an image.

    This is equation 16 of HopSkipJump (Chen et al. 2020, arXiv:1904.02144).

    Args:
        queries: the queries. The pair spends one for each direction.
        row: the pair.
        image: (H, W, 3), an image at the boundary.
        directions: (K, H, W, 3), unit vectors.
        radius: the distance of the decided images from `image`.
    """
    around = np.clip(image + np.float32(radius) * directions, 0, 1)
    moved = (around - image) / np.float32(radius)
    there = np.where(queries.succeeds(np.full(len(directions), row), around), 1.0, -1.0)
    # Subtracting the mean reduces the variance. It would give zero if all decisions agree.
    baseline = 0.0 if np.all(there == there[0]) else there.mean()
    normal = np.tensordot((there - baseline).astype(np.float32), moved, axes=1)[None]
    return ascending("l2", normal)[0]
