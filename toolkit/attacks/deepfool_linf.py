"""DeepFool in the Linf norm (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, section 3.3, equation 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Images, Needs, Task
from toolkit.attacks.deepfool import craft_deepfool
from toolkit.attacks.norms import per_image
from toolkit.defenses.parameters import number


def _closest_linf(margin: NDArray[np.float64], gradient: Images) -> Images:
    """Every value moves by the same amount: the margin over the L1 norm of the gradient, and a trifle across."""
    dual = np.sum(np.abs(gradient), axis=(1, 2, 3), dtype=np.float64)
    return np.sign(gradient) * per_image(np.abs(margin) / dual + 1e-6)


@dataclass(frozen=True)
class DeepFoolLinf:
    """DeepFool with the closed-form step of smallest largest change."""

    name: ClassVar[str] = "deepfool-linf"
    needs: ClassVar[Needs] = "gradient"
    steps: int = number(50, 1, 100_000)
    overshoot: float = number(0.02, 0, 10)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """See `craft_deepfool`."""
        return craft_deepfool(model, task, self.steps, self.overshoot, _closest_linf)


ATTACK = DeepFoolLinf()
