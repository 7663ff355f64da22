"""An attack that adds horizontal stripes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.queries import craft_ladder
from toolkit.parameters import number
from toolkit.pixels import Images

from .pattern import wave


@dataclass(frozen=True)
class Stripes:
    """Adds horizontal stripes, a bit stronger at each level, until the decision flips."""

    name: ClassVar[str] = "stripes"
    needs: ClassVar[Needs] = "runtime"
    traits: ClassVar[Traits] = Traits()
    levels: int = number(20, 1, 1000)
    period: int = number(8, 2, 64)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Try the levels in order. The phase of each pair's stripes is random."""
        height = task.probes.shape[1]
        stripes = np.stack([wave(height, self.period, g.random()) for g in task.generators])[:, :, None, None]

        def striped(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
            strength = ((rungs + 1) / self.levels).astype(np.float32)[:, None, None, None]
            return np.clip(task.probes[rows] + strength * stripes[rows], 0, 1)

        return craft_ladder(model, task, self.levels, striped)


ATTACK = Stripes()
