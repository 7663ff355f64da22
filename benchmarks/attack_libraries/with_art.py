"""The attacks of IBM's Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    CarliniL2Method,
    DeepFool,
    FastGradientMethod,
    ProjectedGradientDescent,
)
from art.estimators.classification import TensorFlowV2Classifier

from attack_libraries.problem import Budget, Images, Problem, TwoClasses


class Art:
    """Attacks with ART, and counts the images that the model is run on."""

    def __init__(self, problem: Problem) -> None:
        self.classifier = TwoClasses(problem)
        self.model = TensorFlowV2Classifier(
            self.classifier,
            nb_classes=2,
            input_shape=problem.probes.shape[1:],
            loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            clip_values=(0, 1),
        )

    @property
    def forward(self) -> int:
        """Images run forward."""
        return self.classifier.forward

    @property
    def backward(self) -> int:
        """Images run backward."""
        return self.classifier.backward

    def attack(self, name: str, problem: Problem, budget: Budget) -> Images | None:
        """Float results of one attack on all pairs of `problem` as one batch; None where ART has no such attack."""
        b, size = budget, len(problem.probes)
        labels = np.where(problem.genuine, 0, 1)
        if name == "fgsm":
            step = b.fgsm_largest / b.fgsm_levels
            attack = FastGradientMethod(
                self.model, eps=b.fgsm_largest + step / 2, eps_step=step, minimal=True, batch_size=size
            )
        elif name == "deepfool":
            attack = DeepFool(
                self.model, max_iter=b.deepfool_steps, epsilon=0.02, nb_grads=2, batch_size=size, verbose=False
            )
        elif name == "pgd":
            attack = ProjectedGradientDescent(
                self.model,
                eps=b.pgd_epsilon,
                eps_step=b.pgd_epsilon / 4,
                max_iter=b.pgd_steps,
                batch_size=size,
                verbose=False,
            )
        elif name == "apgd":
            attack = AutoProjectedGradientDescent(
                self.model,
                eps=b.pgd_epsilon,
                eps_step=2 * b.pgd_epsilon,
                max_iter=b.apgd_steps,
                nb_random_init=1,
                batch_size=size,
                verbose=False,
            )
        elif name == "carlini-wagner":
            attack = CarliniL2Method(
                self.model,
                binary_search_steps=b.searches,
                max_iter=b.search_steps,
                initial_const=problem.first_c,
                batch_size=size,
                verbose=False,
            )
        else:
            return None
        return np.asarray(attack.generate(problem.probes, labels))
