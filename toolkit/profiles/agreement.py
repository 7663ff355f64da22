"""Agreement: the hardened verifier as one ONNX graph beside the defenses' NumPy forms before the bare verifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.profiles.harden import harden
from toolkit.profiles.profile import Profile
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.scores import distances, is_same

_BATCH = 64


@dataclass(frozen=True)
class Agreement:
    """How far the two are apart on the same crops; a random profile makes the same draws in both.

    Attributes:
        profile: its name.
        crops: how many crops were compared.
        pairs: how many pairs of them were decided.
        largest_difference: of an embedding, relative to the embedding's own length.
        flips: pairs that one judges same and the other different.
        nearest_flip: the largest distance to the threshold of a flipped pair, relative to it; 0 without flips.
    """

    profile: str
    crops: int
    pairs: int
    largest_difference: float
    flips: int
    nearest_flip: float


def compare_forms(
    manifest: Manifest, profile: Profile, crops: NDArray[np.float32], index: NDArray[np.intp], execution: Execution
) -> Agreement:
    """Run crops (M, H, W, 3) in [0, 1] through both forms, and decide the pairs `index` (n, 2) of them.

    Raises:
        InputError: the verifier cannot be hardened or run.
    """
    model = read_model(manifest)
    bare, hardened = (
        RuntimeVerifier(manifest, graph, execution, seed=0) for graph in (model, harden(model, manifest, profile))
    )
    batches = [crops[i : i + _BATCH] for i in range(0, len(crops), _BATCH)]
    fused = np.concatenate([hardened.embed(batch) for batch in batches])
    staged = np.concatenate([bare.embed(profile.numpy(batch, seeded_entropy(batch, 0))) for batch in batches])
    d = [distances(manifest.decision.metric, side[index[:, 0]], side[index[:, 1]]) for side in (fused, staged)]
    flipped = is_same(manifest.decision, d[0]) != is_same(manifest.decision, d[1])
    apart = np.linalg.norm(fused - staged, axis=1) / np.linalg.norm(staged, axis=1)
    threshold = manifest.decision.threshold
    return Agreement(
        profile.name,
        len(crops),
        len(index),
        float(apart.max(initial=0)),
        int(flipped.sum()),
        float(np.abs(d[1][flipped] - threshold).max(initial=0) / threshold),
    )
