"""The loop of attacks that walk near the decision boundary and keep the smallest success: FMN, DDN and sigma-zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import CLEARLY, Crafted, Gradients, Task, ascent, clearly_reached
from toolkit.attacks.ladder import finish
from toolkit.attacks.norms import Convex, Size, dual, sizes
from toolkit.pixels import Bools, Images


@dataclass(frozen=True)
class Position:
    """Where the pairs that still have a gradient stand before a step.

    Attributes:
        share: the share of the steps that are done, from 0 to below 1.
        rows: (M,), the numbers of these pairs in the task.
        delta: (M, H, W, 3), their perturbations.
        norm: (M,), the sizes of the perturbations.
        margin, gradient: (M,) and (M, H, W, 3), see `ascent`.
        there: (M,), whether the perturbation is clearly a success.
        nearest: (M,), the size of the smallest success so far; infinity without one.
    """

    share: float
    rows: NDArray[np.intp]
    delta: Images
    norm: NDArray[np.float64]
    margin: NDArray[np.float64]
    gradient: Images
    there: Bools
    nearest: NDArray[np.float64]


def nearest_success(
    model: Gradients, task: Task, steps: int, move: Callable[[Position], Images], norm: Size = "l2"
) -> Crafted:
    """Step `steps` times, and keep each pair's smallest success. Pairs without a gradient leave the batch.

    Args:
        model: the attacked model.
        task: the pairs.
        steps: the number of steps.
        move: returns the next perturbations (M, H, W, 3); they are clipped to images.
        norm: what makes a success small.
    """
    best, nearest = task.probes.copy(), np.full(len(task), np.inf)
    delta = np.zeros_like(task.probes)
    evaluations = np.zeros(len(task), np.int64)
    open_ = np.arange(len(task))
    for k in range(steps + 1):
        probes = task.probes[open_] + delta[open_]
        margin, gradient = ascent(model, task, open_, probes)
        evaluations[open_] += 1
        there, size = clearly_reached(task, open_, margin), sizes(norm, delta[open_])
        better = there & (size < nearest[open_])
        nearest[open_[better]], best[open_[better]] = size[better], probes[better]
        going = gradient.any(axis=(1, 2, 3))
        if k == steps or not going.any():
            break
        open_ = open_[going]
        at = Position(
            k / steps, open_, delta[open_], size[going], margin[going], gradient[going], there[going], nearest[open_]
        )
        delta[open_] = np.clip(task.probes[open_] + move(at), 0, 1) - task.probes[open_]
    return finish(model, task, best, np.isfinite(nearest), evaluations)


def to_boundary(task: Task, at: Position, norm: Convex = "l2") -> NDArray[np.float64]:
    """The distance (M,) to the linearized decision boundary, and clearly across it."""
    return (np.abs(at.margin) + 2 * CLEARLY * task.decision.threshold) / dual(norm, at.gradient)


def cosine(first: float, last: float, share: float) -> float:
    """Interpolate from `first` to `last` along half a cosine, for a `share` from 0 to 1."""
    return last + (first - last) * 0.5 * (1 + float(np.cos(np.pi * share)))
