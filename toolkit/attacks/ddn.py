"""The decoupled direction and norm attack in L2 (Rony et al. 2019, arXiv:1811.09600, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import CLEARLY, Crafted, Gradients, Needs, Task, Traits, ascent, clearly_reached
from toolkit.attacks.ladder import finish
from toolkit.attacks.norms import ascending, per_image, sizes
from toolkit.parameters import number


@dataclass(frozen=True)
class Ddn:
    """Takes gradient steps, and puts every step on a sphere whose radius shrinks after success and grows after failure.

    In contrast to FMN, the probe always lies on the sphere, also after a step that the gradient made shorter. The paper
    starts with a radius of 1 for small images; here the first radius is the distance to the linearized boundary.

    Attributes:
        steps: the number of steps.
        step: the length of the first step, as a multiple of the first radius; it decreases to a hundredth.
        gamma: the relative change of the radius in each step.
    """

    name: ClassVar[str] = "ddn"
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
        delta, radius, first = np.zeros_like(task.probes), np.zeros(len(task)), np.zeros(len(task))
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
            if k == 0:
                lacking = np.abs(margin[going]) + 2 * CLEARLY * task.decision.threshold
                radius[open_] = first[open_] = lacking / sizes("l2", gradient)
            else:
                radius[open_] *= np.where(there, 1 - self.gamma, 1 + self.gamma)
            # The length of steps decreases along half a cosine (section 3 of the paper).
            length = self.step * first[open_] * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * k / self.steps)))
            moved = delta[open_] + per_image(length) * ascending("l2", gradient)
            moved *= per_image(radius[open_] / np.maximum(sizes("l2", moved), 1e-30))
            delta[open_] = np.clip(task.probes[open_] + moved, 0, 1) - task.probes[open_]
        return finish(model, task, best, np.isfinite(nearest), evaluations)


ATTACK = Ddn()
