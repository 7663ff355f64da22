"""Ladders: search for the smallest strength that succeeds, and for an 8-bit probe near a successful float probe.

A ladder is a sequence of strengths. Its entries are called rungs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Runtime, Task, margins, reached
from toolkit.attacks.norms import Ball
from toolkit.pixels import Bools, Images, to_8bit, to_unit

# The scales to try when a float perturbation is converted to 8 bits. They differ by 5 % and go up to about 70.
_SCALES = 1.05 ** np.arange(88)
_SCALES_STRIDE = 6
# The number of rungs in one batch.
_AT_ONCE = 5
# The largest number of model runs of `carry_to_8bit` for one pair. Attacks with a budget reserve this many queries.
CARRY_RUNS = -(-len(_SCALES) // _SCALES_STRIDE) + 1 + 2 * (_SCALES_STRIDE - 1)


class CandidateMaker(Protocol):
    """A function that makes images (M, H, W, 3) of the pairs `rows` (M,), each at its own rung (M,)."""

    def __call__(self, rows: NDArray[np.intp], rungs: NDArray[np.intp], /) -> Images:
        """Make the images."""
        ...


@dataclass(frozen=True)
class Climb:
    """The result of a search on ladders, for each pair.

    Attributes:
        rung: (M,), the first rung that reaches the goal; -1 if none does.
        nearest: (M,), the rung with the largest margin.
        runs: (M,), the number of model runs.
    """

    rung: NDArray[np.intp]
    nearest: NDArray[np.intp]
    runs: NDArray[np.int64]


def first_success(
    model: Runtime,
    task: Task,
    rows: NDArray[np.intp],
    ladders: NDArray[np.intp],
    at_once: int,
    make: CandidateMaker,
    first: int | None = None,
) -> Climb:
    """Find the first rung of each pair's ladder that reaches the goal.

    Each batch tries several rungs. Solved pairs leave the search.

    Args:
        model: the attacked model.
        task: the pairs.
        rows: (M,), the pairs to search.
        ladders: (M, K), the rungs to try for each pair, in order. Negative entries are skipped.
        at_once: the number of rungs in one batch.
        make: makes the images.
        first: the number of rungs in the first batch. It doubles in each batch up to `at_once`. The default is
            `at_once`.
    """
    rung, nearest = np.full((2, len(rows)), -1, np.intp)
    best = np.full(len(rows), -np.inf)
    runs = np.zeros(len(rows), np.int64)
    start, end = 0, first or at_once
    while start < ladders.shape[1]:
        who, column = np.nonzero(ladders[:, start:end] >= 0)
        open_ = rung[who] < 0
        who, column = who[open_], column[open_] + start
        start, end = end, end + min(2 * (end - start), at_once)
        if not len(who):
            continue
        tried = ladders[who, column]
        margin = margins(model, task, rows[who], make(rows[who], tried))
        hit = reached(task, rows[who], margin)
        runs += np.bincount(who, minlength=len(rows))
        # Assign in reverse order, so that the first of several hits remains.
        rung[who[hit][::-1]] = tried[hit][::-1]
        for pair in np.unique(who):
            at = np.flatnonzero(who == pair)
            top = at[np.argmax(margin[at])]
            if margin[top] > best[pair]:
                best[pair], nearest[pair] = margin[top], tried[top]
    return Climb(rung, nearest, runs)


def smallest_success(
    model: Runtime,
    task: Task,
    rows: NDArray[np.intp],
    rungs: int,
    stride: int,
    make: CandidateMaker,
    at_once: int = _AT_ONCE,
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Find the smallest rung that reaches the goal, with a coarse and a fine search.

    The coarse search tries every `stride`-th rung. The fine search tries the rungs just below the first success. If no
    coarse rung succeeds, it tries the rungs around the one with the largest margin. The result equals that of trying
    every rung if the first successful rung is followed by successes for `stride` rungs.

    Args:
        model: the attacked model.
        task: the pairs.
        rows: (M,), the pairs to search.
        rungs: the number of rungs in the ladder.
        stride: the step of the coarse search.
        make: makes the images.
        at_once: the number of coarse rungs in one batch.

    Returns:
        The rung of each pair (M,), -1 if none was found, and the number of model runs for each pair (M,).
    """
    coarse = np.unique([*range(0, rungs, stride), rungs - 1])
    # The first batches are small, because many pairs are solved by the first few rungs.
    climb = first_success(model, task, rows, np.tile(coarse, (len(rows), 1)), at_once, make, first=1)
    solved = climb.rung >= 0
    around = np.where(solved, climb.rung, climb.nearest)[:, None] + np.arange(1 - stride, stride)
    tried = (around < 0) | (around >= rungs) | np.isin(around, coarse)
    fine = np.where(tried | (solved[:, None] & (around >= climb.rung[:, None])), -1, around)
    finer = first_success(model, task, rows, fine, 2 * stride, make)
    return np.where(finer.rung >= 0, finer.rung, climb.rung), climb.runs + finer.runs


def carry_to_8bit(
    model: Runtime, task: Task, probes: Images, success: Bools, ball: Ball | None = None
) -> tuple[NDArray[np.uint8], Bools, NDArray[np.int64]]:
    """Find 8-bit probes near successful float probes.

    Rounding removes most perturbations below half a level. The perturbation is therefore scaled up in small steps until
    the rounded probe succeeds. With a large scale, rounding keeps just the largest changes. If the attack is bounded by
    a ball around the clean probe, the 8-bit probe stays in the ball.

    Args:
        model: the attacked model.
        task: the pairs.
        probes: (N, H, W, 3) float32, the float probes.
        success: (N,), the successful pairs.
        ball: the ball that bounds the perturbation; None without one.

    Returns:
        8-bit probes (N, H, W, 3), which are the clean probes without success; their success (N,); and the number of
        model runs (N,).
    """
    rows = np.flatnonzero(success & task.eight_bits)
    delta = probes - task.probes

    def scaled(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
        clean, scales = task.probes[rows], _SCALES[rungs].astype(np.float32)[:, None, None, None]
        images = np.clip(clean + scales * delta[rows], 0, 1)
        return to_unit(to_8bit(images)) if ball is None else ball.round(clean, ball.project(clean, images))

    # Probes on the surface of the ball usually survive rounding unscaled, so try one scale at a time.
    at_once = _AT_ONCE if ball is None else 1
    rungs, runs = smallest_success(model, task, rows, len(_SCALES), _SCALES_STRIDE, scaled, at_once)
    probes8 = to_8bit(task.probes)
    found = rungs >= 0
    if found.any():
        probes8[rows[found]] = to_8bit(scaled(rows[found], rungs[found]))
    success8 = np.zeros(len(task), np.bool_)
    success8[rows] = rungs >= 0
    evaluations = np.zeros(len(task), np.int64)
    evaluations[rows] = runs
    return probes8, success8, evaluations


@dataclass
class Found:
    """The successes of an attack that stays in a ball, and goes on until a success survives rounding to 8 bits.

    Attributes:
        probes: (N, H, W, 3), the first success of each pair that survives rounding, or else its first success, or else
            the clean probe.
        success: (N,), whether a pair has a success.
        done: (N,), whether its success survives rounding.
        evaluations: (N,), the number of model runs.
    """

    probes: Images
    success: Bools
    done: Bools
    evaluations: NDArray[np.int64]

    @classmethod
    def nothing(cls, task: Task) -> Found:
        """No success yet."""
        none = np.zeros(len(task), np.bool_)
        return cls(task.probes.copy(), none, none.copy(), np.zeros(len(task), np.int64))

    def take(self, model: Runtime, task: Task, rows: NDArray[np.intp], images: Images, ball: Ball) -> None:
        """Take successes (M, H, W, 3) of the pairs `rows` (M,), and see whether they survive rounding."""
        if not len(rows):
            return
        survives = np.ones(len(rows), np.bool_)
        if task.eight_bits:
            survives = reached(task, rows, margins(model, task, rows, ball.round(task.probes[rows], images)))
            self.evaluations[rows] += 1
        new = survives | ~self.success[rows]
        self.probes[rows[new]] = images[new]
        self.success[rows], self.done[rows] = True, survives


def finish(
    model: Runtime,
    task: Task,
    probes: Images,
    success: Bools,
    evaluations: NDArray[np.int64],
    ball: Ball | None = None,
) -> Crafted:
    """Build the result of an attack with float probes: reset failures to the clean probe, and find 8-bit probes."""
    probes = np.where(success[:, None, None, None], probes, task.probes)
    probes8, success8, runs8 = carry_to_8bit(model, task, probes, success, ball)
    return Crafted(probes, success, probes8, success8, evaluations + runs8)
