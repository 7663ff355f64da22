"""An attack that transfers to other verifiers: momentum, input diversity and translation invariance.

MI-FGSM (Dong et al. 2018, arXiv:1710.06081, equations 6 and 7), input diversity (Xie et al. 2019,
arXiv:1803.06978, equation 6) and translation invariance (Dong et al. 2019, arXiv:1904.02884, equation 8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent, reached
from toolkit.attacks.ladder import finish
from toolkit.attacks.norms import Ball, Norm, ascending, per_image
from toolkit.attacks.resampling import apply, gaussian_blur, linear_resize
from toolkit.parameters import number
from toolkit.pixels import Images


def climb(
    model: Gradients,
    task: Task,
    ball: Ball,
    step: float,
    steps: int,
    decay: float,
    slope: Callable[[NDArray[np.intp], Images], Images],
    runs: int = 1,
) -> Crafted:
    """Take steps along accumulated gradients in a ball, and judge the last probes.

    Args:
        model: the attacked model.
        task: the pairs. Pairs without a gradient leave the batch.
        ball: the ball.
        step: the length of a step, in the norm of the ball.
        steps: the number of steps.
        decay: the share of the accumulated gradient that each step keeps.
        slope: returns the gradients (M, H, W, 3) of the pairs `rows` (M,) at their probes (M, H, W, 3).
        runs: how often `slope` runs the model for each pair.
    """
    probes, mean = task.probes.copy(), np.zeros_like(task.probes)
    evaluations = np.zeros(len(task), np.int64)
    open_ = np.arange(len(task))
    for _ in range(steps):
        if not len(open_):
            break
        gradient = slope(open_, probes[open_])
        evaluations[open_] += runs
        length: NDArray[np.float64] = np.sum(np.abs(gradient), axis=(1, 2, 3), dtype=np.float64)
        open_, gradient, length = open_[length > 0], gradient[length > 0], length[length > 0]
        mean[open_] = np.float32(decay) * mean[open_] + gradient * per_image(1 / length)
        moved = probes[open_] + np.float32(step) * ascending(ball.norm, mean[open_])
        probes[open_] = ball.project(task.probes[open_], moved)
    everyone = np.arange(len(task))
    # `ascent` judges the last probes as well, so that both columns of a report use the same model.
    margin, _ = ascent(model, task, everyone, probes)
    return finish(model, task, probes, reached(task, everyone, margin), evaluations + 1, ball)


@dataclass(frozen=True)
class Momentum:
    """Takes steps along accumulated gradients of randomly shrunk and shifted probes.

    All steps are taken, even if the decision flips early, because probes far beyond the known verifier's boundary are
    more likely to transfer. Success is judged on the last probe.

    Attributes:
        name: the name of the attack.
        norm: the norm of the ball.
        epsilon: the radius of the ball, in units of the pixel range.
        steps: the number of steps.
        path: the length of all steps together, in radii of the ball.
        decay: the share of the accumulated gradient that each step keeps.
        diversity: the probability that a step uses a shrunk probe.
        smallest: the side of the smallest shrunk probe, as a share of the original side; the rest is black.
        kernel: the width of the Gaussian that smooths the gradient, which replaces averaging over translations.
        far: see `Traits`.
    """

    needs: ClassVar[Needs] = "gradient"
    name: str = "momentum"
    norm: Norm = "linf"
    epsilon: float = number(16 / 255, 1e-6, 1000)
    steps: int = number(10, 1, 100_000)
    path: float = number(1.0, 1, 100)
    decay: float = number(1.0, 0, 1)
    diversity: float = number(0.5, 0, 1)
    smallest: float = number(0.9, 0.1, 1)
    kernel: int = number(7, 1, 31, 2)
    far: bool = False

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(norm=self.norm, epsilon=self.epsilon, steps=self.steps, restarts=1, far=self.far)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs without a gradient leave the batch."""
        _, height, width, _ = task.probes.shape
        blur = gaussian_blur(height, self.kernel)[None], gaussian_blur(width, self.kernel)[None]

        def slope(rows: NDArray[np.intp], probes: Images) -> Images:
            down, across = self._views(task, rows, height, width)
            _, gradient = ascent(model, task, rows, apply(down, across, probes))
            # The views are linear maps. Their transposes map the gradient back to the probe.
            return apply(*blur, apply(down.swapaxes(1, 2), across.swapaxes(1, 2), gradient))

        ball, step = Ball(self.norm, self.epsilon), self.path * self.epsilon / self.steps
        return climb(model, task, ball, step, self.steps, self.decay, slope)

    def _views(self, task: Task, rows: NDArray[np.intp], height: int, width: int) -> tuple[Images, Images]:
        """Draw one random view for each pair of `rows`: shrink both sides by the same factor, then shift.

        Returns:
            The matrices (M, H, H) for rows and (M, W, W) for columns of pixels.
        """
        down = np.tile(np.eye(height, dtype=np.float32), (len(rows), 1, 1))
        across = np.tile(np.eye(width, dtype=np.float32), (len(rows), 1, 1))
        for i, row in enumerate(rows):
            generator = task.generators[row]
            chosen, share, *shift = generator.random(4)
            if chosen >= self.diversity:
                continue
            for matrix, place in ((down[i], shift[0]), (across[i], shift[1])):
                side = len(matrix)
                shrunk = round(side * (self.smallest + (1 - self.smallest) * share))
                first = int(place * (side - shrunk + 1))
                matrix[:] = 0
                matrix[first : first + shrunk] = linear_resize(side, shrunk)
        return down, across


ATTACK = Momentum()
