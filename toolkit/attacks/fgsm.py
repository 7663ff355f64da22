"""The fast gradient sign method with smallest epsilon (Goodfellow et al. 2014, arXiv:1412.6572; paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent
from toolkit.attacks.ladder import carry_to_8bit, smallest_success
from toolkit.parameters import number
from toolkit.pixels import Images

# The coarse search tries every fourth epsilon. Neighboring epsilons differ by 6.5 %. A success in a range of fewer than
# four epsilons may be missed.
_STRIDE = 4


@dataclass(frozen=True)
class Fgsm:
    """Takes one step along the sign of the gradient, with the smallest epsilon that flips the decision.

    Attributes:
        levels: the number of epsilons to choose from.
        smallest: the smallest epsilon, in units of the pixel range.
        largest: the largest epsilon, in units of the pixel range.
        spacing: geometric, so that small epsilons are found as precisely as large ones, or linear, as in other
            libraries.
    """

    name: ClassVar[str] = "fgsm"
    needs: ClassVar[Needs] = "gradient"
    traits: ClassVar[Traits] = Traits(minimizes="linf")
    levels: int = number(100, 2, 10_000)
    smallest: float = number(0.0005, 1e-6, 0.01)
    largest: float = number(0.25, 0.01, 1)
    spacing: Literal["geometric", "linear"] = "geometric"

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs whose gradient is zero everywhere fail."""
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
