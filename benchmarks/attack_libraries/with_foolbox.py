"""Foolbox's attacks."""

from __future__ import annotations

from typing import Any

import foolbox
import numpy as np
import tensorflow as tf
from foolbox import attacks

from attack_libraries.problem import Budget, Images, Problem, TwoClasses

FMN = {"fmn": attacks.L2FMNAttack, "fmn-linf": attacks.LInfFMNAttack, "fmn-l1": attacks.L1FMNAttack}


class Foolbox:
    """Attacks with Foolbox, and counts the images that the model is run on."""

    def __init__(self, problem: Problem) -> None:
        # Once: it empties TensorFlow's caches, and the next call of every function takes half a second longer.
        tf.random.set_seed(int(problem.seeds[0]))
        self.classifier = TwoClasses(problem)
        self.model = foolbox.TensorFlowModel(self.classifier, bounds=(0, 1), device="/CPU:0")

    @property
    def forward(self) -> int:
        """Images run forward."""
        return self.classifier.forward

    @property
    def backward(self) -> int:
        """Images run backward."""
        return self.classifier.backward

    def attack(self, name: str, problem: Problem, budget: Budget) -> Images | None:
        """Float results of one attack on all pairs of `problem` as one batch; None where Foolbox has no such attack."""
        b, x = budget, tf.constant(problem.probes)
        labels = tf.constant(np.where(problem.genuine, 0, 1))
        if name == "fgsm":
            epsilons = np.linspace(0, b.fgsm_largest, b.fgsm_levels + 1)[1:]
            return _first(problem, *attacks.FGSM()(self.model, x, labels, epsilons=epsilons.tolist())[1:])
        if name == "gaussian":
            deviations = np.linspace(0, b.largest_deviation, b.deviations + 1)[1:]
            epsilons = deviations * np.sqrt(problem.probes[0].size)
            repeated = attacks.L2AdditiveGaussianNoiseAttack().repeat(b.draws)
            # Its second result is scaled back to an L2 norm of epsilon at most, as Foolbox judges success.
            return _first(problem, *repeated(self.model, x, labels, epsilons=epsilons.tolist())[1:])
        if name == "pgd":
            pgd = attacks.LinfPGD(rel_stepsize=1 / 4, steps=b.pgd_steps, random_start=False)
            return np.asarray(pgd(self.model, x, labels, epsilons=b.pgd_epsilon)[1])
        minimal = _minimal(name, problem, budget)
        return None if minimal is None else np.asarray(minimal(self.model, x, labels, epsilons=None)[0])


def _minimal(name: str, problem: Problem, budget: Budget) -> Any:
    """One of its attacks that look for the nearest success; None where it has no such attack."""
    b = budget
    if name in FMN:
        return FMN[name](steps=b.fmn_steps)
    if name == "ddn":
        return attacks.DDNAttack(steps=b.ddn_steps)
    if name == "deepfool":
        return attacks.L2DeepFoolAttack(steps=b.deepfool_steps, candidates=2, overshoot=0.02, loss="logits")
    if name == "carlini-wagner":
        return attacks.L2CarliniWagnerAttack(b.searches, b.search_steps, initial_const=problem.first_c)
    return None


def _first(problem: Problem, images: list[Any], success: Any) -> Images:
    """Each pair's image at the first of several epsilons that succeeded; the clean one where none did."""
    result, hits = problem.probes.copy(), np.asarray(success)
    for row in np.flatnonzero(hits.any(axis=0)):
        result[row] = images[int(np.argmax(hits[:, row]))][row]
    return result
