"""A universal perturbation: one perturbation for all faces (Moosavi-Dezfooli et al. 2017, arXiv:1610.08401).

It is trained as in Shafahi et al. 2020 (arXiv:1811.11304, algorithm 2), with gradient ascent over batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent, margins, reached
from toolkit.attacks.norms import Ball, per_image, sizes
from toolkit.errors import InputError
from toolkit.parameters import number
from toolkit.pixels import Images, to_8bit, to_unit


@dataclass(frozen=True)
class Universal:
    """Adds the same perturbation to every probe.

    Such a perturbation is made once and can be used by anybody. It is trained to move faces away from their own clean
    embeddings, which is dodging. It may also succeed at impersonation by chance, which is counted as well. People are
    never attacked with a perturbation that was trained on them: the audit trains one perturbation for each half of the
    people on the other half. `evaluations` does not include the training.

    Attributes:
        epsilon: the largest change of a value, in units of the pixel range.
        epochs: the number of passes over the photographs in training.
        batch: the number of photographs in a batch.
    """

    name: ClassVar[str] = "universal"
    needs: ClassVar[Needs] = "gradient"
    epsilon: float = number(16 / 255, 1e-6, 1000)
    epochs: int = number(10, 1, 1000)
    batch: int = number(16, 1, 64)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(norm="linf", epsilon=self.epsilon)

    def train(self, model: Gradients, task: Task) -> Images:
        """Train a perturbation (H, W, 3) that moves the probes of `task` away from their references.

        Args:
            model: the attacked model.
            task: the photographs to learn from. Each reference must be the photograph's own embedding, and the goal of
                all pairs must be dodging.
        """
        delta = np.zeros_like(task.probes[0])
        batches = -(-len(task) // self.batch)
        step = np.float32(2 * self.epsilon / (self.epochs * batches) ** 0.5)
        for _ in range(self.epochs):
            for rows in np.array_split(task.generators[0].permutation(len(task)), batches):
                _, gradient = ascent(model, task, rows, np.clip(task.probes[rows] + delta, 0, 1))
                # Normalize the gradients, so that each face has the same weight.
                mean = np.sum(gradient * per_image(1 / np.maximum(sizes("l2", gradient), 1e-30)), axis=0)
                delta = np.clip(delta + step * np.sign(mean), -self.epsilon, self.epsilon).astype(np.float32)
        return delta

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Add the trained perturbation to each probe.

        Raises:
            InputError: the task has no trained perturbation.
        """
        if task.universal is None:
            raise InputError("universal: there are too few people to train on some and attack the others; add pairs")
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
