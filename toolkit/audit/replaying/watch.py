"""A model that remembers how far an attack came with each pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Gradients, Task, measurer
from toolkit.pixels import Images


class Watched:
    """Passes every call on, and remembers the margins of each pair in the order of the attack's gradients.

    An attack does not say which pair an image belongs to. It is the pair with the same reference whose clean probe is
    nearest. The margins are those of the decision, without a detector's.
    """

    def __init__(self, model: Gradients, task: Task) -> None:
        """Watch what an attack on `task` does with `model`."""
        self._model, self._task = model, task
        self._margins: list[list[float]] = [[] for _ in range(len(task))]

    def embed(self, crops: Images) -> NDArray[np.float32]:
        """See `Runtime`."""
        return self._model.embed(crops)

    def embed_and_score(self, crops: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Runtime`."""
        return self._model.embed_and_score(crops)

    def compare(self, embeddings: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Comparing`."""
        return measurer(self._model, self._task.decision)(embeddings, references)

    def distances(self, crops: Images, references: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Gradients`."""
        return self._model.distances(crops, references)

    def scores_and_gradients(self, crops: Images) -> tuple[NDArray[np.float64], Images]:
        """See `Gradients`."""
        return self._model.scores_and_gradients(crops)

    def distances_and_gradients(
        self, crops: Images, references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], Images]:
        """See `Gradients`."""
        d, gradients = self._model.distances_and_gradients(crops, references)
        for image, reference, distance in zip(crops, references, d, strict=True):
            row = self._row(image, reference)
            sign = 1.0 if self._task.dodging[row] else -1.0
            self._margins[row].append(sign * (float(distance) - self._task.decision.threshold))
        return d, gradients

    def _row(self, image: Images, reference: NDArray[np.float32]) -> int:
        mine = np.flatnonzero((self._task.references == reference).all(axis=1))
        if not len(mine):
            mine = np.arange(len(self._task))
        apart = [float(np.abs(self._task.probes[row] - image).sum()) for row in mine]
        return int(mine[np.argmin(apart)])

    @property
    def margins(self) -> tuple[tuple[float, ...], ...]:
        """The margins of each pair."""
        return tuple(map(tuple, self._margins))
