"""Gradients estimated by natural evolution strategies (Ilyas et al. 2018, arXiv:1804.08598, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import CARRY_RUNS, Crafted, Gradients, Images, Needs, Task, finish, reached
from toolkit.attacks.norms import Ball, ascending, per_image
from toolkit.attacks.queries import Queries
from toolkit.defenses.parameters import number


@dataclass(frozen=True)
class Nes:
    """Projected sign steps along gradients that are estimated from pairs of opposite Gaussian samples.

    The samples are closer than a level of 8 bits, so that queries are float images; so many queries are kept back as
    it may take to round the result.

    Attributes:
        epsilon: the largest change of a value.
        budget: queries per pair.
        samples: queries for one gradient, an even number.
        deviation: of the samples around the probe.
        step: the change of each value in a step.
        momentum: how much of the last gradient is kept, as in the authors' code.
    """

    name: ClassVar[str] = "nes"
    needs: ClassVar[Needs] = "runtime"
    epsilon: float = number(8 / 255, 1e-6, 1000)
    budget: int = number(1000, 100, 10_000_000)
    samples: int = number(50, 2, 10_000, 2)
    deviation: float = number(0.001, 1e-6, 1)
    step: float = number(0.01, 1e-6, 1000)
    momentum: float = number(0.9, 0, 1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; pairs leave when solved or out of queries."""
        ball, queries = Ball("linf", self.epsilon), Queries(model, task, self.budget - CARRY_RUNS)
        probes, mean = task.probes.copy(), np.zeros_like(task.probes)
        success = np.zeros(len(task), np.bool_)
        rows = queries.affording(np.arange(len(task)), 1)
        while len(rows):
            success[rows] = reached(task, rows, queries.margins(rows, probes[rows]))
            # A step is worth its queries only if one is left to judge it.
            rows = queries.affording(rows[~success[rows]], self.samples + 1)
            if not len(rows):
                break
            gradient = np.zeros_like(probes[rows])
            for _ in range(self.samples // 2):
                noise = np.stack(
                    [task.generators[row].standard_normal(probes.shape[1:], dtype=np.float32) for row in rows]
                )
                shift = np.float32(self.deviation) * noise
                rise = queries.margins(rows, self._within(probes[rows] + shift)) - queries.margins(
                    rows, self._within(probes[rows] - shift)
                )
                gradient += per_image(rise / (2 * self.deviation * (self.samples // 2))) * noise
            mean[rows] = np.float32(self.momentum) * mean[rows] + np.float32(1 - self.momentum) * gradient
            moved = probes[rows] + np.float32(self.step) * ascending("linf", mean[rows])
            probes[rows] = ball.project(task.probes[rows], moved)
        return finish(model, task, probes, success, queries.spent, ball)

    @staticmethod
    def _within(images: Images) -> Images:
        return np.clip(images, 0, 1)


ATTACK = Nes()
