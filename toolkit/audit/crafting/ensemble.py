"""Several verifiers at once, as an attack on one pair sees them: the mean of their distances, in units of thresholds.

Attacking the mean of several models transfers better (Liu et al. 2017, arXiv:1611.02770).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Gradients
from toolkit.attacks.warping import bilinear, warp
from toolkit.faces.carry import Matrix
from toolkit.pixels import Float, Images
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import normalized

Embeddings = NDArray[np.float32]

# The decision of an ensemble: the mean of the distances, each as a share of its threshold, is 1 at the boundary.
DECISION = Decision("squared-euclidean", 1.0, 4.0)


@dataclass(frozen=True)
class Sight:
    """How one verifier sees the crops of a pair's first verifier: a linear map, and the photograph around it.

    Attributes:
        matrix: sparse, from the pixels of the given crop to those of its own crop.
        around: (H', W', 3), its own crop where the given crop covers nothing, else zero.
    """

    matrix: Any
    around: Images

    def see(self, images: Images) -> Images:
        """Resample images (N, H, W, 3) to its own crop (N, H', W', 3)."""
        height, width, _ = self.around.shape
        return np.stack([warp(self.matrix, image, height, width) + self.around for image in images])

    def back(self, gradients: Images, height: int, width: int) -> Images:
        """Map gradients (N, H', W', 3) back to the given crop (N, height, width, 3)."""
        return np.stack([warp(self.matrix.T, gradient, height, width) for gradient in gradients])


def sight(matrix: Matrix, height: int, width: int, own: Images) -> Sight:
    """Make the map of one pair.

    Args:
        matrix: (3, 3), from pixels of the given crop to pixels of its own crop, see `faces.carry.between`.
        height: the height of the given crop.
        width: its width.
        own: (H', W', 3) in [0, 1], its own crop of the probe.
    """
    y, x = np.indices(own.shape[:2])
    back = np.linalg.inv(matrix)
    # Rounding must not put the outermost pixels outside where the crops are the same.
    at = np.round(back[:2, :2] @ np.stack([x.ravel(), y.ravel()]) + back[:2, 2:], 6)
    read = bilinear(at[0], at[1], height, width)
    covered = np.asarray(read.sum(axis=1)).reshape(own.shape[:2]) > 0
    return Sight(read, np.where(covered[..., None], np.float32(0), own))


@dataclass(frozen=True)
class Member:
    """One verifier of an ensemble: its model, how it decides, and how it sees the pair's crops; None if unchanged."""

    model: Gradients
    decision: Decision
    sight: Sight | None = None

    def seen(self, images: Images) -> Images:
        """The images as this verifier sees them."""
        return images if self.sight is None else self.sight.see(images)

    def scaled(self, embeddings: Embeddings) -> Embeddings:
        """Scale embeddings (N, D) so that their squared Euclidean distance is 1 at this verifier's threshold.

        For a Euclidean distance, this is the square of its share of the threshold.
        """
        threshold = self.decision.threshold
        if self.decision.metric == "cosine":
            # The squared distance of unit vectors is twice their cosine distance.
            return (normalized(embeddings) / np.sqrt(2 * threshold)).astype(np.float32)
        unit = threshold if self.decision.metric == "euclidean" else np.sqrt(threshold)
        return (embeddings / unit).astype(np.float32)

    def shares(self, d: Float) -> tuple[Float, Float]:
        """The squared distances of `scaled` embeddings for distances (N,), and their derivatives; both (N,)."""
        share = d / self.decision.threshold
        if self.decision.metric == "euclidean":
            return share**2, 2 * share / self.decision.threshold
        return share, np.full_like(d, 1 / self.decision.threshold)


@dataclass(frozen=True)
class Ensemble:
    """Several verifiers as one model with gradients, for the crops of one pair, see `attacks.base.Gradients`.

    Its embedding joins their embeddings, so that `DECISION` decides by the mean of their margins.

    Attributes:
        members: the verifiers.
        references: the embedding (D,) of the pair's reference by each of them.
    """

    members: Sequence[Member]
    references: Sequence[Embeddings]

    def reference(self) -> Embeddings:
        """The embedding (1, D) of the reference by the ensemble."""
        return self._join([m.scaled(r[None]) for m, r in zip(self.members, self.references, strict=True)])

    def embed(self, crops: Images) -> Embeddings:
        """Return the joined embeddings (N, D)."""
        return self._join([m.scaled(m.model.embed(m.seen(crops))) for m in self.members])

    def distances(self, crops: Images, references: Embeddings) -> Float:
        """Return the mean distances (N,) of `distances_and_gradients`. `references` are those of the pair."""
        each = [m.shares(m.model.distances(m.seen(crops), r))[0] for m, r in self._with_references(len(references))]
        return np.asarray(np.mean(each, axis=0))

    def distances_and_gradients(self, crops: Images, references: Embeddings) -> tuple[Float, Images]:
        """Return the mean distances (N,), and their gradients (N, H, W, 3). `references` are those of the pair."""
        total, slope = np.zeros(len(crops)), np.zeros_like(crops)
        for member, own in self._with_references(len(references)):
            d, gradient = member.model.distances_and_gradients(member.seen(crops), own)
            share, of_distance = member.shares(d)
            gradient = gradient * of_distance.astype(np.float32)[:, None, None, None]
            total += share / len(self.members)
            back = gradient if member.sight is None else member.sight.back(gradient, *crops.shape[1:3])
            slope += back / np.float32(len(self.members))
        return total, slope

    def embed_and_score(self, crops: Images) -> tuple[Embeddings, NDArray[np.float32]]:
        """Return the joined embeddings, and no suspicion: an ensemble has no detector."""
        return self.embed(crops), np.zeros(len(crops), np.float32)

    def scores_and_gradients(self, crops: Images) -> tuple[Float, Images]:
        """Return no suspicion, and its gradients."""
        return np.zeros(len(crops)), np.zeros_like(crops)

    def _join(self, embeddings: Sequence[Embeddings]) -> Embeddings:
        return np.concatenate(embeddings, axis=1) / np.float32(np.sqrt(len(self.members)))

    def _with_references(self, count: int) -> list[tuple[Member, Embeddings]]:
        repeated = (np.repeat(own[None], count, axis=0) for own in self.references)
        return list(zip(self.members, repeated, strict=True))
