"""Replaying: crafted probes through the deployed verifier, and what came of every pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Bools, Runtime, flipped, to_unit
from toolkit.audit.craft import Chunk
from toolkit.faces.crops import CropSet
from toolkit.profiles.profile import Profile
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import distances

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Replay:
    """One value for each of n pairs.

    Attributes:
        crafted: whether crafting succeeded on the attacker's model, in 8 bits.
        success: whether the deployed verifier's decision is at the goal for the 8-bit probe; False where crafting
            failed. Whether the pair counts is decided by `CleanRun.correct`.
        success_float: the same for the float probe.
        l2, linf, rms: norms of the 8-bit perturbation: L2 and Linf in units of the pixel range, RMS in 1/255.
        l2_float: L2 norm of the float perturbation.
        l2_defended: L2 norm of defended 8-bit probe minus clean probe (the paper's second table).
        evaluations: model evaluations that crafting took.
    """

    crafted: Bools
    success: Bools
    success_float: Bools
    l2: Float
    linf: Float
    rms: Float
    l2_float: Float
    l2_defended: Float
    evaluations: NDArray[np.int64]


@dataclass(frozen=True)
class CleanRun:
    """The deployed verifier on the pairs as they are.

    Attributes:
        embeddings: (M, D), of every distinct crop.
        distances: (n,), of every pair.
        correct: (n,), whether the pair was decided correctly.
    """

    embeddings: NDArray[np.float32]
    distances: Float
    correct: Bools


def run_clean(verifier: Runtime, crops: CropSet, decision: Decision, batch: int = 256) -> CleanRun:
    """Embed every distinct crop once and decide every pair."""
    parts = [verifier.embed(to_unit(crops.images[i : i + batch])) for i in range(0, len(crops.images), batch)]
    embeddings = np.concatenate(parts)
    d = distances(decision.metric, embeddings[crops.index[:, 0]], embeddings[crops.index[:, 1]])
    genuine = np.array([pair.genuine for pair in crops.pairs])
    return CleanRun(embeddings, d, ~flipped(d, genuine, decision))


def replay_chunk(
    chunk: Chunk,
    verifier: Runtime,
    profile: Profile,
    clean: CleanRun,
    crops: CropSet,
    decision: Decision,
    seed: int,
) -> Replay:
    """Run one chunk of probes through `verifier`, which has `profile` deployed; references go through it as well."""
    rows, crafted = chunk.rows, chunk.crafted
    genuine = np.array([crops.pairs[row].genuine for row in rows])
    original, probes8 = to_unit(crops.images[crops.index[rows, 0]]), to_unit(crafted.probes8)

    def judged(probes: NDArray[np.float32], tried: Bools) -> Bools:
        success = np.zeros(len(rows), np.bool_)
        if tried.any():
            references = clean.embeddings[crops.index[rows[tried], 1]]
            d = distances(decision.metric, verifier.embed(probes[tried]), references)
            success[tried] = flipped(d, genuine[tried], decision)
        return success

    delta = probes8 - original
    return Replay(
        crafted=crafted.success8,
        success=judged(probes8, crafted.success8),
        success_float=judged(crafted.probes, crafted.success),
        l2=l2_norm(delta),
        linf=np.abs(delta).max(axis=(1, 2, 3)).astype(np.float64),
        rms=255 * l2_norm(delta) / np.sqrt(delta[0].size),
        l2_float=l2_norm(crafted.probes - original),
        l2_defended=l2_norm(profile.numpy(probes8, seeded_entropy(probes8, seed)) - original),
        evaluations=crafted.evaluations,
    )


def join(parts: Sequence[Replay]) -> Replay:
    """One replay of consecutive chunks."""
    names = [field.name for field in fields(Replay)]
    return Replay(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def l2_norm(delta: NDArray[np.float32]) -> Float:
    """L2 norm (N,) of each perturbation (N, H, W, 3), summed in float64."""
    return np.asarray(np.sqrt(np.sum(np.square(delta, dtype=np.float64), axis=(1, 2, 3))))
