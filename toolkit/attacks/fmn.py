"""The fast minimum-norm attack in L2 (Pintor et al. 2021, arXiv:2102.12827, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import CLEARLY, Crafted, Gradients, Needs, Task, Traits, ascent, clearly_reached
from toolkit.attacks.ladder import finish
from toolkit.attacks.norms import ascending, per_image, sizes
from toolkit.parameters import number


def _cosine(first: float, last: float, share: float) -> float:
    """Interpolate from `first` to `last` along half a cosine, for a `share` from 0 to 1."""
    return last + (first - last) * 0.5 * (1 + float(np.cos(np.pi * share)))


@dataclass(frozen=True)
class Fmn:
    """Takes gradient steps in a ball around the probe that shrinks after success and grows after failure.

    Until the first success, the ball reaches at least to the linearized boundary. Afterwards, each step changes the
    radius by the share `gamma`. `step` and `gamma` decrease along half a cosine.

    Attributes:
        steps: the number of steps.
        step: the L2 length of the first step; it decreases to a hundredth.
        gamma: the first relative change of the radius; it decreases to a fiftieth.
    """

    name: ClassVar[str] = "fmn"
    needs: ClassVar[Needs] = "gradient"
    steps: int = number(100, 1, 100_000)
    step: float = number(1.0, 1e-6, 100)
    gamma: float = number(0.05, 0, 0.99)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(minimizes="l2", steps=self.steps, restarts=1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair, and keep the smallest success. Pairs without a gradient leave the batch."""
        best, nearest = task.probes.copy(), np.full(len(task), np.inf)
        delta = np.zeros_like(task.probes)
        radius = np.full(len(task), np.inf)
        evaluations = np.zeros(len(task), np.int64)
        open_ = np.arange(len(task))
        for k in range(self.steps + 1):
            probes = task.probes[open_] + delta[open_]
            margin, gradient = ascent(model, task, open_, probes)
            evaluations[open_] += 1
            there, norm = clearly_reached(task, open_, margin), sizes("l2", delta[open_])
            better = there & (norm < nearest[open_])
            nearest[open_[better]], best[open_[better]] = norm[better], probes[better]
            going = gradient.any(axis=(1, 2, 3))
            if k == self.steps or not going.any():
                break
            open_, gradient, there = open_[going], gradient[going], there[going]
            gamma = _cosine(self.gamma, self.gamma / 50, k / self.steps)
            lacking = np.abs(margin[going]) + 2 * CLEARLY * task.decision.threshold
            linear = norm[going] + lacking / sizes("l2", gradient)
            grown = radius[open_] * (1 + gamma)
            # Clipping may shorten every step, so that the linear radius alone would never suffice. It must also grow.
            before = np.where(np.isfinite(grown), np.maximum(linear, grown), linear)
            outward = np.where(np.isfinite(nearest[open_]), grown, before)
            inward = np.minimum(radius[open_] * (1 - gamma), nearest[open_])
            radius[open_] = np.where(there, inward, outward)
            moved = delta[open_] + np.float32(_cosine(self.step, self.step / 100, k / self.steps)) * ascending(
                "l2", gradient
            )
            moved *= per_image(np.minimum(1, radius[open_] / sizes("l2", moved)))
            delta[open_] = np.clip(task.probes[open_] + moved, 0, 1) - task.probes[open_]
        return finish(model, task, best, np.isfinite(nearest), evaluations)


ATTACK = Fmn()
