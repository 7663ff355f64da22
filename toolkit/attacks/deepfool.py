"""DeepFool in the L2 norm (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599; paper, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent, ascent_margins, reached
from toolkit.attacks.ladder import finish
from toolkit.attacks.norms import sizes
from toolkit.parameters import number
from toolkit.pixels import Images

# Computes the smallest perturbations (M, H, W, 3) that set linearized margins (M,) with gradients (M, H, W, 3) to zero.
Closest = Callable[[NDArray[np.float64], Images], Images]

# A call of a model costs as much as a few images, so that fewer are checked together with the others' gradients.
_SEVERAL = 3


def craft_deepfool(model: Gradients, task: Task, steps: int, overshoot: float, closest: Closest) -> Crafted:
    """Step to the linearized boundary repeatedly. Both norms share this function.

    Solved pairs and pairs without a gradient leave the batch. If a step probably solves the whole batch or several
    pairs, their results are checked without computing gradients, which would probably not be needed.

    Args:
        model: the attacked model.
        task: the pairs.
        steps: the largest number of steps.
        overshoot: the sum of the steps is stretched by this share.
        closest: computes a step.
    """
    probes, total = task.probes.copy(), np.zeros_like(task.probes)
    success, likely = np.zeros((2, len(task)), np.bool_)
    evaluations, last = np.zeros(len(task), np.int64), np.full(len(task), np.nan)
    open_ = np.arange(len(task))
    # One more evaluation than steps, because the result of the last step is evaluated as well.
    for _ in range(steps + 1):
        judged = open_[likely[open_]]
        if 0 < min(len(open_), _SEVERAL) <= len(judged):
            success[judged] = reached(task, judged, ascent_margins(model, task, judged, probes[judged]))
            evaluations[judged] += 1
            open_ = open_[~success[open_]]
        if not len(open_):
            break
        margin, gradient = ascent(model, task, open_, probes[open_])
        evaluations[open_] += 1
        there = reached(task, open_, margin)
        success[open_[there]] = True
        going = ~there & gradient.any(axis=(1, 2, 3))
        open_, margin, gradient = open_[going], margin[going], gradient[going]
        # Newton steps reduce the margin quadratically. The overshoot compensates for a remaining share of this size.
        likely[open_] = np.isinf(task.alarm) & (np.square(margin / last[open_]) < overshoot)
        last[open_] = margin
        total[open_] += closest(margin, gradient)
        stretched = np.float32(1 + overshoot) * total[open_]
        stretched += task.probes[open_]
        probes[open_] = np.clip(stretched, 0, 1, out=stretched)
    return finish(model, task, probes, success, evaluations)


def _closest_l2(margin: NDArray[np.float64], gradient: Images) -> Images:
    norm = sizes("l2", gradient)
    length = (np.abs(margin) / norm + 1e-4) / norm
    return gradient * length[:, None, None, None].astype(np.float32)


@dataclass(frozen=True)
class DeepFool:
    """Steps to the linearized decision boundary until the decision flips.

    There are two classes, and the margin is the distance minus the threshold. Each step is the closed-form smallest
    perturbation of the linearized model in the L2 norm.

    Attributes:
        steps: the largest number of steps.
        overshoot: the sum of the steps is stretched by this share, as in the authors' code.
    """

    name: ClassVar[str] = "deepfool"
    needs: ClassVar[Needs] = "gradient"
    steps: int = number(50, 1, 100_000)
    overshoot: float = number(0.02, 0, 10)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(minimizes="l2", steps=self.steps, restarts=1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_deepfool`."""
        return craft_deepfool(model, task, self.steps, self.overshoot, _closest_l2)


ATTACK = DeepFool()
