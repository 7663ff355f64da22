"""Agreement: compare a hardened verifier's ONNX graph with its NumPy form.

The NumPy form runs the defenses in NumPy, and then the bare verifier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import Profile
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.scores import is_same

_BATCH = 64


@dataclass(frozen=True)
class Agreement:
    """The differences between the two forms on the same crops. A random profile makes the same draws in both.

    Attributes:
        profile: the name of the profile.
        crops: the number of crops compared.
        pairs: the number of pairs compared.
        largest_difference: the largest L2 difference of an embedding, relative to the embedding's length.
        flips: the number of pairs on which the two decisions differ.
        nearest_flip: the largest difference between a flipped pair's distance and the threshold, relative to the
            threshold; 0 without flips.
        alarms: the number of crops that the detector flags in one form only.
    """

    profile: str
    crops: int
    pairs: int
    largest_difference: float
    flips: int
    nearest_flip: float
    alarms: int


def compare_forms(
    manifest: Manifest, profile: Profile, crops: NDArray[np.float32], index: NDArray[np.intp], execution: Execution
) -> Agreement:
    """Run crops through both forms, and compare the embeddings and decisions.

    Args:
        manifest: the bare verifier.
        profile: the profile.
        crops: (M, H, W, 3) in [0, 1].
        index: (n, 2), the indices of the two crops of each pair.
        execution: how to run the verifiers.

    Raises:
        InputError: the verifier cannot be hardened or run.
    """
    model = read_model(manifest)
    bare = RuntimeVerifier(manifest, model, execution)
    hardened = deploy(model, manifest, profile, execution, seed=0)
    metric, alarm = manifest.decision.metric, hardened.manifest.alarm
    batches = [crops[i : i + _BATCH] for i in range(0, len(crops), _BATCH)]
    parts = [hardened.embed_and_score(batch) for batch in batches]
    steps = [profile.embed_and_score(bare.embed, metric, batch, seeded_entropy(batch, 0)) for batch in batches]
    (fused, fused_scores), (staged, staged_scores) = (
        map(np.concatenate, zip(*side, strict=True)) for side in (parts, steps)
    )
    d = [hardened.compare(side[index[:, 0]], side[index[:, 1]]) for side in (fused, staged)]
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
        int(((fused_scores > alarm) != (staged_scores > alarm)).sum()),
    )
