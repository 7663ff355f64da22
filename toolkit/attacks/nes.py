"""NES: gradients estimated with natural evolution strategies (Ilyas et al. 2018, arXiv:1804.08598, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, reached
from toolkit.attacks.ladder import CARRY_RUNS, finish
from toolkit.attacks.norms import Ball, ascending, per_image
from toolkit.attacks.queries import Queries
from toolkit.parameters import number
from toolkit.pixels import Images


@dataclass(frozen=True)
class Nes:
    """Takes projected sign steps along gradients that are estimated from scores of Gaussian samples.

    The samples come in pairs of opposite sign. Queries are float images, because the samples are closer to the probe
    than one level of 8 bits. Some queries are reserved for rounding the result to 8 bits.

    Attributes:
        epsilon: the largest change of a value, in units of the pixel range.
        budget: the number of queries per pair.
        samples: the number of queries for one gradient; an even number.
        deviation: the standard deviation of the samples around the probe.
        step: the change of each value in a step.
        momentum: the share of the last gradient that is kept, as in the authors' code.
    """

    name: ClassVar[str] = "nes"
    needs: ClassVar[Needs] = "runtime"
    epsilon: float = number(8 / 255, 1e-6, 1000)
    budget: int = number(1000, 100, 10_000_000)
    samples: int = number(50, 2, 10_000, 2)
    deviation: float = number(0.001, 1e-6, 1)
    step: float = number(0.01, 1e-6, 1000)
    momentum: float = number(0.9, 0, 1)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(norm="linf", epsilon=self.epsilon, budget=self.budget, graded=True)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Solved pairs and pairs without queries left leave the batch."""
        ball, queries = Ball("linf", self.epsilon), Queries(model, task, self.budget - CARRY_RUNS)
        probes, mean = task.probes.copy(), np.zeros_like(task.probes)
        success = np.zeros(len(task), np.bool_)
        rows = queries.affording(np.arange(len(task)), 1)
        while len(rows):
            success[rows] = reached(task, rows, queries.margins(rows, probes[rows]))
            # A step is useful only if one more query is left to judge it.
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
