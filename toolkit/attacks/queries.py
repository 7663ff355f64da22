"""What attacks on a deployed verifier share: asking within a budget, ladders of candidates, a first success."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import (
    Bools,
    CandidateMaker,
    Crafted,
    Images,
    Runtime,
    Task,
    first_success,
    margins,
    reached,
    to_8bit,
    to_unit,
)

_AT_ONCE = 4
# Blends with noise that are tried for a start.
_START_LEVELS = 20


class Queries:
    """Asks the model about images of a task's pairs, and counts how often for each pair."""

    def __init__(self, model: Runtime, task: Task, budget: int) -> None:
        self.model, self.task, self.budget = model, task, budget
        self.spent = np.zeros(len(task), np.int64)

    def margins(self, rows: NDArray[np.intp], images: Images) -> NDArray[np.float64]:
        """How far images (M, H, W, 3) of pairs (M,) are from the goal, as `base.margins`; a pair may come twice."""
        np.add.at(self.spent, rows, 1)
        if not len(rows):
            return np.zeros(0)
        return margins(self.model, self.task, rows, images)

    def succeeds(self, rows: NDArray[np.intp], images: Images) -> Bools:
        """The decision alone: whether images reach their goals."""
        return reached(self.task, rows, self.margins(rows, images))

    def affording(self, rows: NDArray[np.intp], cost: int) -> NDArray[np.intp]:
        """Those of `rows` that have `cost` queries left."""
        return rows[self.spent[rows] + cost <= self.budget]


def craft_ladder(model: Runtime, task: Task, rungs: int, make: CandidateMaker) -> Crafted:
    """Climb until the 8-bit form of a candidate reaches the goal: every query is what a deployed verifier takes."""

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
    """The result of an attack whose every query was an 8-bit image: float and 8-bit results are the same."""
    probes = np.where(success[:, None, None, None], probes, task.probes)
    return Crafted(probes, success, to_8bit(probes), success, spent)


def noise_blends(task: Task, levels: int) -> CandidateMaker:
    """A ladder from each probe to uniform noise of its own, in `levels` equal steps."""
    noise = np.stack([generator.random(task.probes.shape[1:], dtype=np.float32) for generator in task.generators])

    def blended(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
        share = ((rungs + 1) / levels).astype(np.float32)[:, None, None, None]
        return (1 - share) * task.probes[rows] + share * noise[rows]

    return blended


def find_starts(queries: Queries) -> tuple[Images, NDArray[np.intp]]:
    """An image that reaches the goal, for attacks that walk along the boundary from there.

    It is the task's `start` where that reaches the goal, and else, to dodge, the first blend with noise. Noise
    is nobody's face, so that without a start no impersonation can begin.

    Returns:
        Images (N, H, W, 3), and the pairs that have one.
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
    return images, np.flatnonzero(found)
