"""Salt-and-pepper noise: random pixels become black or white (as in Rauber et al. 2017, arXiv:1707.04131)."""

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
class SaltPepper:
    """Sets random pixels to black or white, with a share that rises until the decision flips.

    Changed pixels stay changed when the share rises. The steps of the share are smaller for small shares, where
    precision matters most.

    Attributes:
        levels: the number of shares to try.
        largest: the largest share of changed pixels.
    """

    name: ClassVar[str] = "salt-pepper"
    needs: ClassVar[Needs] = "runtime"
    levels: int = number(50, 1, 10_000)
    largest: float = number(1.0, 1e-6, 1)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(draws=self.levels)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_ladder`."""
        side = (*task.probes.shape[1:3], 1)
        turns = np.stack([generator.random(side, dtype=np.float32) for generator in task.generators])
        white = np.stack([generator.random(side, dtype=np.float32) < 0.5 for generator in task.generators])
        shares = self.largest * (np.arange(1, self.levels + 1) / self.levels) ** 2

        def sprinkled(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
            return np.where(
                turns[rows] < shares[rungs][:, None, None, None], white[rows].astype(np.float32), task.probes[rows]
            )

        return craft_ladder(model, task, self.levels, sprinkled)


ATTACK = SaltPepper()
