"""An attack that transfers to other verifiers: block shuffle and rotation (Wang et al. 2024, arXiv:2308.10299)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent
from toolkit.attacks.momentum import climb
from toolkit.attacks.norms import Ball
from toolkit.attacks.warping import bilinear, warp
from toolkit.parameters import number
from toolkit.pixels import Images


@dataclass(frozen=True)
class Bsr:
    """Takes sign steps along accumulated gradients, each the mean over several shuffled probes.

    A probe is cut into strips, and each strip into blocks, at random places. Strips and blocks change their order, and
    each block turns by a random angle; its corners become black. Which direction comes first is random. All steps are
    taken, and success is judged on the last probe, see `momentum.climb`.

    The paper attacks classifiers of objects. A verifier expects an aligned face, so that shuffling may cost more than
    it gives; `momentum` keeps the face in place.

    Attributes:
        epsilon: the largest change of a value, in units of the pixel range. The step size is `epsilon` / `steps`.
        steps: the number of steps.
        decay: the share of the accumulated gradient that each step keeps.
        copies: the number of shuffled probes in each step.
        blocks: the number of strips, and of blocks in each strip.
        angle: the largest angle in degrees.
    """

    name: ClassVar[str] = "bsr"
    needs: ClassVar[Needs] = "gradient"
    epsilon: float = number(16 / 255, 1e-6, 1000)
    steps: int = number(10, 1, 100_000)
    decay: float = number(1.0, 0, 1)
    copies: int = number(20, 1, 1000)
    blocks: int = number(2, 1, 16)
    angle: float = number(24.0, 0, 180)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(norm="linf", epsilon=self.epsilon, steps=self.steps, restarts=1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs without a gradient leave the batch."""
        _, height, width, _ = task.probes.shape

        def slope(rows: NDArray[np.intp], probes: Images) -> Images:
            total = np.zeros_like(probes)
            for _ in range(self.copies):
                views = [self._view(task.generators[row], height, width) for row in rows]
                shuffled = np.stack([warp(v, probe, height, width) for v, probe in zip(views, probes, strict=True)])
                _, gradient = ascent(model, task, rows, shuffled)
                # The views are linear maps. Their transposes map the gradient back to the probe.
                total += np.stack([warp(v.T, g, height, width) for v, g in zip(views, gradient, strict=True)])
            return total

        ball = Ball("linf", self.epsilon)
        return climb(model, task, ball, self.epsilon / self.steps, self.steps, self.decay, slope, self.copies)

    def _view(self, generator: np.random.Generator, height: int, width: int) -> Any:
        """Draw one shuffle of the pixels of an image, as a sparse matrix."""
        upright = generator.random() < 0.5
        long, across = (height, width) if upright else (width, height)
        # Where each pixel of the shuffled image comes from, along the strips and across them.
        along, beside = np.full((2, long, across), np.nan)
        for strip, to in self._shuffled(generator, long):
            for block, at in self._shuffled(generator, across):
                angle = np.radians(generator.uniform(-self.angle, self.angle))
                size = strip[1] - strip[0], block[1] - block[0]
                middle = (size[0] - 1) / 2, (size[1] - 1) / 2
                i, j = np.arange(size[0])[:, None] - middle[0], np.arange(size[1]) - middle[1]
                turned = np.cos(angle) * i - np.sin(angle) * j, np.sin(angle) * i + np.cos(angle) * j
                outside = (np.abs(turned[0]) > middle[0]) | (np.abs(turned[1]) > middle[1])
                here = np.s_[to : to + size[0], at : at + size[1]]
                along[here] = np.where(outside, np.nan, strip[0] + middle[0] + turned[0])
                beside[here] = np.where(outside, np.nan, block[0] + middle[1] + turned[1])
        y, x = (along, beside) if upright else (beside.T, along.T)
        return bilinear(x.ravel(), y.ravel(), height, width)

    def _shuffled(self, generator: np.random.Generator, side: int) -> list[tuple[tuple[int, int], int]]:
        """Cut a side into parts, none more than twice as long as another, and draw their order.

        Returns:
            For each part, its first pixel and the one after its last, and where it goes.
        """
        shares = np.cumsum(1 + generator.random(self.blocks))
        ends = [0, *np.rint(side * shares / shares[-1]).astype(int).tolist()]
        parts, to = [], 0
        for part in generator.permutation(self.blocks):
            first, end = ends[part], ends[part + 1]
            parts.append(((first, end), to))
            to += end - first
        return parts


ATTACK = Bsr()
