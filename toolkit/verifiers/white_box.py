"""What an attacker has who knows everything: the deployed runtime to try probes on, the original for gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.verifiers.runtime import RuntimeVerifier
from toolkit.verifiers.tensorflow import TensorFlowVerifier


@dataclass(frozen=True)
class WhiteBox:
    """Embeddings come from `runtime`, so that success is judged where it counts; gradients from `original`."""

    runtime: RuntimeVerifier
    original: TensorFlowVerifier

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (N, D) of crops (N, H, W, 3) in [0, 1]."""
        return self.runtime.embed(crops)

    def distances(self, crops: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances (N,) of the original, as `distances_and_gradients` gives them."""
        return self.original.distances(crops, references)

    def distances_and_gradients(
        self, crops: NDArray[np.float32], references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Distances (N,) to reference embeddings (N, D) and their gradients with respect to the crops."""
        return self.original.distances_and_gradients(crops, references)

    def embed_and_score(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`embed`, and the detector's attack scores (N,)."""
        return self.runtime.embed_and_score(crops)

    def scores_and_gradients(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Attack scores (N,) and their gradients with respect to the crops."""
        return self.original.scores_and_gradients(crops)
