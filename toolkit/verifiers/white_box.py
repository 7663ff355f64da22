"""The white-box attacker's access: the deployed verifier for trying probes, and the original model for gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.verifiers.runtime import RuntimeVerifier
from toolkit.verifiers.tensorflow import TensorFlowVerifier


@dataclass(frozen=True)
class WhiteBox:
    """A deployed verifier and its original model.

    Attributes:
        runtime: the deployed verifier. It gives the embeddings, because success is judged on the deployed side.
        original: the original model. It gives the gradients.
    """

    runtime: RuntimeVerifier
    original: TensorFlowVerifier

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of crops (N, H, W, 3) in [0, 1]."""
        return self.runtime.embed(crops)

    def compare(self, embeddings: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances (N,) of embeddings to references, as the deployed verifier compares them."""
        return self.runtime.compare(embeddings, references)

    def distances(self, crops: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances (N,) of `distances_and_gradients` without computing gradients."""
        return self.original.distances(crops, references)

    def distances_and_gradients(
        self, crops: NDArray[np.float32], references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return distances (N,) to references (N, D), and their gradients (N, H, W, 3) with respect to the crops."""
        return self.original.distances_and_gradients(crops, references)

    def embed_and_score(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the embeddings (N, D) as in `embed`, and the detector's attack scores (N,)."""
        return self.runtime.embed_and_score(crops)

    def scores_and_gradients(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return attack scores (N,), and their gradients (N, H, W, 3) with respect to the crops."""
        return self.original.scores_and_gradients(crops)
