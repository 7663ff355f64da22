"""Less and less contrast until the decision flips (as in Rauber et al. 2017, arXiv:1707.04131)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Images, Needs, Task
from toolkit.attacks.queries import craft_ladder
from toolkit.defenses.parameters import number


@dataclass(frozen=True)
class Contrast:
    """All values move toward mid-gray, by a share that rises from 1 over `levels` to all of the way."""

    name: ClassVar[str] = "contrast"
    needs: ClassVar[Needs] = "runtime"
    levels: int = number(50, 1, 10_000)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_ladder`."""

        def flattened(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
            share = ((rungs + 1) / self.levels).astype(np.float32)[:, None, None, None]
            return (1 - share) * task.probes[rows] + share * np.float32(0.5)

        return craft_ladder(model, task, self.levels, flattened)


ATTACK = Contrast()
