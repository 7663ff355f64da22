"""DeepFool in the Linf norm (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, section 3.3, equation 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.deepfool import craft_deepfool
from toolkit.attacks.norms import per_image
from toolkit.parameters import number
from toolkit.pixels import Images


def _closest_linf(margin: NDArray[np.float64], gradient: Images) -> Images:
    """Change every value by the same amount: the margin over the gradient's L1 norm, plus a small constant."""
    dual = np.sum(np.abs(gradient), axis=(1, 2, 3), dtype=np.float64)
    return np.sign(gradient) * per_image(np.abs(margin) / dual + 1e-6)


@dataclass(frozen=True)
class DeepFoolLinf:
    """Steps to the linearized decision boundary in the Linf norm until the decision flips.

    Each step is the closed-form smallest perturbation of the linearized model in the Linf norm.

    Attributes:
        steps: the largest number of steps.
        overshoot: the sum of the steps is stretched by this share, as in the authors' code.
    """

    name: ClassVar[str] = "deepfool-linf"
    needs: ClassVar[Needs] = "gradient"
    steps: int = number(50, 1, 100_000)
    overshoot: float = number(0.02, 0, 10)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(minimizes="linf", steps=self.steps, restarts=1)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_deepfool`."""
        return craft_deepfool(model, task, self.steps, self.overshoot, _closest_linf)


ATTACK = DeepFoolLinf()
