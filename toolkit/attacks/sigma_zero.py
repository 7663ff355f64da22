"""Sigma-zero, for the number of changed pixels (Cinà et al. 2024, arXiv:2402.01879, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.descent import Position, cosine, nearest_success
from toolkit.attacks.norms import per_image, sizes
from toolkit.parameters import number
from toolkit.pixels import Images


@dataclass(frozen=True)
class SigmaZero:
    """Descends along the missing margin and a smooth number of changed pixels, and undoes pixels below a threshold.

    The paper counts single values. Here a pixel counts once: its smooth count is s / (s + `sigma`), where s is the sum
    of the squared changes of its channels. A pixel whose largest change is below the threshold is undone as a whole, so
    that all other pixels keep the probe's exact values. The threshold rises after success and falls after failure. The
    margin counts as a share of the decision's threshold, and no longer after success. The largest value of a gradient
    is 1. Steps go along the gradient, as Adam's steps move all pixels alike and changed more pixels on `facenet-mini`.

    Attributes:
        steps: the number of steps.
        step: the largest change of a value in the first step; it decreases to a tenth.
        sigma: how smooth the count is.
        threshold: the first threshold, in units of the pixel range.
        change: the change of the threshold, as a share of `step`.
    """

    name: ClassVar[str] = "sigma-zero"
    needs: ClassVar[Needs] = "gradient"
    steps: int = number(200, 1, 100_000)
    step: float = number(1.0, 1e-6, 100)
    sigma: float = number(1e-3, 1e-9, 1)
    threshold: float = number(0.3, 0, 1)
    change: float = number(0.01, 0, 1)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(minimizes="l0", steps=self.steps, restarts=1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; see `nearest_success`."""
        threshold = np.full(len(task), self.threshold)
        _, height, width, _ = task.probes.shape

        def move(at: Position) -> Images:
            clean, length = task.probes[at.rows], cosine(self.step, self.step / 10, at.share)
            squared = np.sum(np.square(at.delta), axis=3, keepdims=True) + np.float32(self.sigma)
            slope = at.delta * np.float32(2 * self.sigma / (height * width)) / np.square(squared)
            slope -= at.gradient * per_image(np.where(at.there, 0, 1 / task.decision.threshold))
            slope *= per_image(length / np.maximum(sizes("linf", slope), 1e-30))
            moved = np.clip(clean + at.delta - slope, 0, 1) - clean
            threshold[at.rows] += np.where(at.there, 1, -1) * self.change * length
            threshold[at.rows] = np.clip(threshold[at.rows], 0, 1)
            kept = np.abs(moved).max(axis=3, keepdims=True) >= per_image(threshold[at.rows])
            return np.where(kept, moved, np.float32(0))

        return nearest_success(model, task, self.steps, move, "l0")


ATTACK = SigmaZero()
