"""Replaying: crafted probes through the deployed verifier, and what came of every pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Bools, flipped, to_unit
from toolkit.audit.craft import Chunk
from toolkit.audit.group import Embeddings, reference_distances
from toolkit.faces.crops import CropSet
from toolkit.faces.rows import gather_rows
from toolkit.profiles.profile import Profile
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.runtime import RuntimeVerifier

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Replay:
    """One value for each of n pairs.

    Attributes:
        crafted: whether crafting succeeded on the attacker's model, in 8 bits.
        success: whether the deployed verifier's decision is at the goal for the 8-bit probe; False where crafting
            failed, and where a detector flags the probe. Whether the pair counts is decided by `CleanRun.eligible`.
        at_goal: the same, whether flagged or not.
        scores: attack scores of the 8-bit probes; zero without a detector and where crafting failed.
        success_float: the same for the float probe.
        l2, linf, rms: norms of the 8-bit perturbation: L2 and Linf in units of the pixel range, RMS in 1/255.
        l2_float: L2 norm of the float perturbation.
        l2_defended: L2 norm of defended 8-bit probe minus clean probe (the paper's second table).
        evaluations: model evaluations that crafting took.
    """

    crafted: Bools
    success: Bools
    at_goal: Bools
    scores: Float
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
        scores: (M,), the attack score of every distinct crop, zero without a detector.
        alarm: the score above which a crop is flagged, infinite without a detector.
        eligible: (n,), whether the pair was decided correctly and its probe is not flagged: a pair that the deployed
            verifier already turns away cannot be attacked, and is no success.
    """

    embeddings: Embeddings
    distances: Float
    correct: Bools
    scores: Float
    alarm: float
    eligible: Bools

    @property
    def false_alarms(self) -> Rate | None:
        """Flagged crops over all distinct clean crops; None without a detector."""
        return Rate(int((self.scores > self.alarm).sum()), len(self.scores)) if np.isfinite(self.alarm) else None


def run_clean(
    verifier: RuntimeVerifier, crops: CropSet, decision: Decision, batch: int = 256, spill: Path | None = None
) -> CleanRun:
    """Embed every distinct crop once and decide every pair; embeddings lie on the disk of `spill`, if it is given."""
    scores: list[NDArray[np.float32]] = []

    def embedded() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(crops.images), batch):
            embeddings, of_batch = verifier.embed_and_score(to_unit(crops.images[start : start + batch]))
            scores.append(of_batch)
            yield embeddings

    embeddings = gather_rows(embedded(), spill)
    d = np.concatenate(
        [
            reference_distances(crops, rows, embeddings, embeddings[crops.index[rows, 0]], decision.metric)
            for rows in (np.arange(len(crops.pairs))[i : i + batch] for i in range(0, len(crops.pairs), batch))
        ]
    )
    genuine = np.array([pair.genuine for pair in crops.pairs])
    correct, alarm, score = ~flipped(d, genuine, decision), verifier.manifest.alarm, np.concatenate(scores)
    unnoticed = score[crops.index[:, 0]] <= alarm
    return CleanRun(embeddings, d, correct, score.astype(np.float64), alarm, correct & unnoticed)


def replay_chunk(
    chunk: Chunk,
    verifier: RuntimeVerifier,
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

    def judged(probes: NDArray[np.float32], tried: Bools) -> tuple[Bools, Float]:
        at_goal, scores = np.zeros(len(rows), np.bool_), np.zeros(len(rows))
        if tried.any():
            embeddings, scores[tried] = verifier.embed_and_score(probes[tried])
            d = reference_distances(crops, rows[tried], clean.embeddings, embeddings, decision.metric)
            at_goal[tried] = flipped(d, genuine[tried], decision)
        return at_goal, scores

    delta = probes8 - original
    at_goal, scores = judged(probes8, crafted.success8)
    judged8 = at_goal, scores
    at_goal_float, scores_float = judged8 if crafted.in_8bit else judged(crafted.probes, crafted.success)
    l2 = l2_norm(delta)
    l2_float = l2 if crafted.in_8bit else l2_norm(crafted.probes - original)
    l2_defended = l2
    if not profile.empty:
        l2_defended = l2_norm(profile.numpy(probes8, seeded_entropy(probes8, seed))[: len(rows)] - original)
    return Replay(
        crafted=crafted.success8,
        success=at_goal & (scores <= clean.alarm),
        at_goal=at_goal,
        scores=scores,
        success_float=at_goal_float & (scores_float <= clean.alarm),
        l2=l2,
        linf=np.abs(delta).max(axis=(1, 2, 3)).astype(np.float64),
        rms=255 * l2 / np.sqrt(delta[0].size),
        l2_float=l2_float,
        l2_defended=l2_defended,
        evaluations=crafted.evaluations,
    )


def join(parts: Sequence[Replay]) -> Replay:
    """One replay of consecutive chunks."""
    names = [field.name for field in fields(Replay)]
    return Replay(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def l2_norm(delta: NDArray[np.float32]) -> Float:
    """L2 norm (N,) of each perturbation (N, H, W, 3), summed in float64."""
    return np.asarray(np.sqrt(np.sum(np.square(delta, dtype=np.float64), axis=(1, 2, 3))))
