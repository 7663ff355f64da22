"""Contrast reduction until the decision flips (as in Rauber et al. 2017, arXiv:1707.04131)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.queries import craft_ladder
from toolkit.parameters import number
from toolkit.pixels import Images


@dataclass(frozen=True)
class Contrast:
    """Moves all values toward mid-gray, with a share that rises until the decision flips.

    The share rises from 1 / `levels` to 1.
    """

    name: ClassVar[str] = "contrast"
    needs: ClassVar[Needs] = "runtime"
    levels: int = number(50, 1, 10_000)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(draws=self.levels)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_ladder`."""

        def flattened(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
            share = ((rungs + 1) / self.levels).astype(np.float32)[:, None, None, None]
            return (1 - share) * task.probes[rows] + share * np.float32(0.5)

        return craft_ladder(model, task, self.levels, flattened)


ATTACK = Contrast()
