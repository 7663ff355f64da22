"""The toolkit's own attacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attack_libraries.problem import Budget, Images, Problem
from toolkit.attacks import fmn_l1, fmn_linf
from toolkit.attacks.apgd import Apgd
from toolkit.attacks.base import Attack, Task
from toolkit.attacks.carlini_wagner import CarliniWagner
from toolkit.attacks.ddn import Ddn
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.pgd import Pgd
from toolkit.verifiers.tensorflow import TensorFlowVerifier


class Ours:
    """Attacks with the toolkit, and counts the images that the model is run on.

    The other libraries stop at floats; so does this, unless it is also to look for 8-bit probes.
    """

    eight_bits = False

    def __init__(self, problem: Problem) -> None:
        self.forward = self.backward = 0
        self.verifier = TensorFlowVerifier(problem.manifest, network=problem.network)

    def embed(self, crops: Images) -> NDArray[np.float32]:
        """Embeddings, counted."""
        self.forward += len(crops)
        return self.verifier.embed(crops)

    def distances(self, crops: Images, references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances, counted."""
        self.forward += len(crops)
        return self.verifier.distances(crops, references)

    def distances_and_gradients(
        self, crops: Images, references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], Images]:
        """Distances and gradients, counted."""
        self.forward += len(crops)
        self.backward += len(crops)
        return self.verifier.distances_and_gradients(crops, references)

    def embed_and_score(self, crops: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embeddings and attack scores, counted."""
        self.forward += len(crops)
        return self.verifier.embed_and_score(crops)

    def scores_and_gradients(self, crops: Images) -> tuple[NDArray[np.float64], Images]:
        """Attack scores and gradients, counted."""
        self.forward += len(crops)
        self.backward += len(crops)
        return self.verifier.scores_and_gradients(crops)

    def attack(self, name: str, problem: Problem, budget: Budget) -> Images | None:
        """Float results of one attack on all pairs of `problem` as one batch."""
        b = budget
        attacks: dict[str, Attack] = {
            "fgsm": Fgsm(b.fgsm_levels, b.fgsm_largest / b.fgsm_levels, b.fgsm_largest, "linear"),
            "deepfool": DeepFool(b.deepfool_steps),
            "pgd": Pgd(epsilon=b.pgd_epsilon, step=b.pgd_epsilon / 4, steps=b.pgd_steps),
            "carlini-wagner": CarliniWagner(b.searches, b.search_steps),
            "gaussian": Gaussian(b.deviations, b.largest_deviation, b.draws),
            "fmn": Fmn(steps=b.fmn_steps),
            "fmn-linf": replace(fmn_linf.ATTACK, steps=b.fmn_steps),
            "fmn-l1": replace(fmn_l1.ATTACK, steps=b.fmn_steps),
            "ddn": Ddn(steps=b.ddn_steps),
            "apgd": Apgd(epsilon=b.pgd_epsilon, steps=b.apgd_steps, restarts=1),
        }
        generators = tuple(np.random.default_rng(seed) for seed in problem.seeds)
        decision = problem.manifest.decision
        task = Task(
            problem.probes, problem.references, problem.genuine, decision, generators, eight_bits=self.eight_bits
        )
        return attacks[name].craft(self, task).probes


class OursTo8Bit(Ours):
    """The same with all that an audit needs: probes that succeed as 8-bit images."""

    eight_bits = True
