"""The fast gradient sign method, smallest epsilon (Goodfellow et al. 2014, arXiv:1412.6572; paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Images, Needs, Task, ascent, carry_to_8bit, smallest_success
from toolkit.defenses.parameters import number

# Neighboring epsilons are 6.5 % apart; a success that ends within four of them may be missed.
_STRIDE = 4


@dataclass(frozen=True)
class Fgsm:
    """One gradient per pair; then the smallest epsilon of a ladder at which the decision flips.

    The ladder has `levels` values from `smallest` to `largest`, in units of the pixel range: geometric, so that small
    epsilons are found as precisely as large ones, or linear as in other libraries.
    """

    name: ClassVar[str] = "fgsm"
    needs: ClassVar[Needs] = "gradient"
    levels: int = number(100, 2, 10_000)
    smallest: float = number(0.0005, 1e-6, 0.01)
    largest: float = number(0.25, 0.01, 1)
    spacing: Literal["geometric", "linear"] = "geometric"

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; a pair whose gradient is zero everywhere has no direction and fails."""
        everyone = np.arange(len(task))
        spaced = np.geomspace if self.spacing == "geometric" else np.linspace
        epsilons = spaced(self.smallest, self.largest, self.levels).astype(np.float32)
        _, gradient = ascent(model, task, everyone, task.probes)
        direction = np.sign(gradient)

        def stepped(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
            return np.clip(task.probes[rows] + epsilons[rungs][:, None, None, None] * direction[rows], 0, 1)

        rungs, runs = smallest_success(model, task, everyone, self.levels, _STRIDE, stepped)
        success = rungs >= 0
        probes = task.probes.copy()
        probes[success] = stepped(everyone[success], rungs[success])
        probes8, success8, runs8 = carry_to_8bit(model, task, probes, success)
        return Crafted(probes, success, probes8, success8, 1 + runs + runs8)


ATTACK = Fgsm()
