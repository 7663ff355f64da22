"""A universal perturbation: one for all faces (Moosavi-Dezfooli et al. 2017, arXiv:1610.08401).

Trained as Shafahi et al. 2020 (arXiv:1811.11304, algorithm 2) do: by ascent over batches, not one image at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Images, Needs, Task, ascent, margins, reached, to_8bit, to_unit
from toolkit.attacks.norms import Ball, per_image, sizes
from toolkit.defenses.parameters import number
from toolkit.errors import InputError


@dataclass(frozen=True)
class Universal:
    """Adds the same perturbation to every probe: it can be made once and given to anybody.

    It is trained to take faces away from their own clean embeddings, which is to dodge; whom it impersonates by that is
    chance, and is counted as well. Nobody is attacked by what was trained on them: `audit/craft.py` trains one for each
    half of the people on the other half. Evaluations do not count the training.
    """

    name: ClassVar[str] = "universal"
    needs: ClassVar[Needs] = "gradient"
    epsilon: float = number(16 / 255, 1e-6, 1000)
    epochs: int = number(10, 1, 1000)
    batch: int = number(16, 1, 64)

    def train(self, model: Gradients, task: Task) -> Images:
        """The perturbation (H, W, 3) that takes the probes of `task` farthest from its references, on the mean.

        Args:
            model: the attacked model.
            task: photographs to learn from, each with its own embedding as reference, all dodging.
        """
        delta = np.zeros_like(task.probes[0])
        batches = -(-len(task) // self.batch)
        step = np.float32(2 * self.epsilon / (self.epochs * batches) ** 0.5)
        for _ in range(self.epochs):
            for rows in np.array_split(task.generators[0].permutation(len(task)), batches):
                _, gradient = ascent(model, task, rows, np.clip(task.probes[rows] + delta, 0, 1))
                # Each face counts alike, however steep its way is.
                mean = np.sum(gradient * per_image(1 / np.maximum(sizes("l2", gradient), 1e-30)), axis=0)
                delta = np.clip(delta + step * np.sign(mean), -self.epsilon, self.epsilon).astype(np.float32)
        return delta

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Add the perturbation that each pair was given.

        Raises:
            InputError: none was trained.
        """
        if task.universal is None:
            raise InputError("universal: there are too few people to train it on some and attack others")
        ball = Ball("linf", self.epsilon)
        rows = np.arange(len(task))
        probes = ball.project(task.probes, task.probes + task.universal)
        probes8 = to_8bit(ball.round(task.probes, probes))
        success = reached(task, rows, margins(model, task, rows, probes))
        success8 = reached(task, rows, margins(model, task, rows, to_unit(probes8)))
        kept = np.where(success[:, None, None, None], probes, task.probes)
        kept8 = np.where(success8[:, None, None, None], probes8, to_8bit(task.probes))
        return Crafted(kept, success, kept8, success8, np.full(len(task), 2, np.int64))


ATTACK = Universal()
