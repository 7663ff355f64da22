"""DeepFool in the L2 norm (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599; paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, ascent, carry_to_8bit, reaches


@dataclass(frozen=True)
class DeepFool:
    """Steps to the linearized decision boundary until the decision flips.

    With two classes, and the distance minus the threshold as the margin, a step is the closed-form smallest
    perturbation of the linearized model; `overshoot` stretches the sum of the steps, as in the authors' code.
    """

    name: ClassVar[str] = "deepfool"
    needs: ClassVar[Needs] = "gradient"
    steps: int = 50
    overshoot: float = 0.02

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; solved pairs leave the batch, and so do those whose gradient vanishes."""
        probes, total = task.probes.copy(), np.zeros_like(task.probes)
        success = np.zeros(len(task), np.bool_)
        evaluations = np.zeros(len(task), np.int64)
        open_ = np.arange(len(task))
        # One evaluation more than steps: the last step is judged as well.
        for _ in range(self.steps + 1):
            margin, gradient = ascent(model, task, open_, probes[open_])
            evaluations[open_] += 1
            reached = reaches(margin, task.dodging[open_])
            success[open_[reached]] = True
            norm = np.sqrt(np.sum(np.square(gradient, dtype=np.float64), axis=(1, 2, 3)))
            going = ~reached & (norm > 0)
            open_, margin, gradient, norm = open_[going], margin[going], gradient[going], norm[going]
            if not len(open_):
                break
            length = (np.abs(margin) / norm + 1e-4) / norm
            total[open_] += gradient * length[:, None, None, None].astype(np.float32)
            probes[open_] = np.clip(task.probes[open_] + np.float32(1 + self.overshoot) * total[open_], 0, 1)
        probes[~success] = task.probes[~success]
        probes8, success8, runs8 = carry_to_8bit(model, task, probes, success)
        return Crafted(probes, success, probes8, success8, evaluations + runs8)


ATTACK = DeepFool()
