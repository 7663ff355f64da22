"""Replays: crafted probes run through the deployed verifier, with the result of every pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Traits, flipped, measurer
from toolkit.attacks.norms import Norm
from toolkit.audit.clean.bench import Deployed
from toolkit.audit.clean.group import reference_distances
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.craft import Chunk
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, Float, to_unit
from toolkit.profiles.profile import Profile
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Decision

# How often each probe is presented to a random profile, which draws anew each time.
PRESENTATIONS = 10


@dataclass(frozen=True)
class Replay:
    """Results of n pairs in one scenario. All attributes are arrays (n,), but for `passed`.

    Attributes:
        crafted: whether the 8-bit probe succeeds on the attacker's own model.
        passed: (n, `presentations`), whether the 8-bit probe reaches the goal on the deployed verifier, without being
            flagged, each time that it is presented. False if crafting failed. Only pairs of `CleanRun.eligible` count.
        at_goal: like `success`, but whether the probe is flagged or not.
        scores: attack scores of the 8-bit probes; zero without a detector, or if crafting failed.
        success_float: like `success`, for the float probe.
        l2, linf, rms: norms of the 8-bit perturbation: L2 and Linf in units of the pixel range, RMS in 1/255.
        l2_float: L2 norm of the float perturbation, in units of the pixel range.
        l2_defended: L2 norm of the defended 8-bit probe minus the clean probe (table 2 of the paper).
        evaluations: number of model evaluations during crafting.
    """

    crafted: Bools
    passed: Bools
    at_goal: Bools
    scores: Float
    success_float: Bools
    l2: Float
    linf: Float
    rms: Float
    l2_float: Float
    l2_defended: Float
    evaluations: NDArray[np.int64]

    @property
    def success(self) -> Bools:
        """Whether the first presentation succeeds."""
        return self.passed[:, 0]

    def norms(self, norm: Norm) -> Float:
        """The norms of the 8-bit perturbation, in units of the pixel range."""
        return self.linf if norm == "linf" else self.l2

    @property
    def hits(self) -> NDArray[np.int64]:
        """How many of the presentations succeed."""
        return self.passed.sum(axis=1)

    @property
    def first_hit(self) -> NDArray[np.int64]:
        """The first presentation that succeeds, from 1; 0 if none does."""
        return np.where(self.passed.any(axis=1), self.passed.argmax(axis=1) + 1, 0)


def own_norm(traits: Traits) -> Norm | None:
    """The norm of an attack's ball, or the one that it minimizes, or L2; None if it minimizes something else."""
    looked_for = traits.norm or traits.minimizes or "l2"
    return looked_for if looked_for in ("linf", "l2") else None


def presentations(profile: Profile) -> int:
    """How often each probe is presented to a profile: once, or `PRESENTATIONS` times if it is random."""
    return PRESENTATIONS if profile.random else 1


def replay_chunk(
    chunk: Chunk,
    verifier: Deployed,
    profile: Profile,
    clean: CleanRun,
    crops: CropSet,
    decision: Decision,
    seed: int,
) -> Replay:
    """Run one chunk of probes through the deployed verifier.

    Args:
        chunk: the probes.
        verifier: the verifier with `profile`.
        profile: the deployed profile.
        clean: the clean run of `verifier`, for the embeddings of the references.
        crops: the pairs.
        decision: metric and threshold.
        seed: seed of the draws of a random profile.
    """
    rows, crafted = chunk.rows, chunk.crafted
    genuine = np.array([crops.pairs[row].genuine for row in rows])
    original, probes8 = to_unit(crops.images[crops.index[rows, 0]]), to_unit(crafted.probes8)

    def judged(probes: NDArray[np.float32], tried: Bools, draw: int = 0) -> tuple[Bools, Float]:
        at_goal, scores = np.zeros(len(rows), np.bool_), np.zeros(len(rows))
        if tried.any():
            embeddings, scores[tried] = verifier.embed_and_score(probes[tried], draw)
            d = reference_distances(crops, rows[tried], clean.embeddings, embeddings, measurer(verifier, decision))
            at_goal[tried] = flipped(d, genuine[tried], decision)
        return at_goal, scores

    delta = probes8 - original
    drawn = [judged(probes8, crafted.success8, draw) for draw in range(presentations(profile))]
    passed = np.stack([reached & (score <= clean.alarm) for reached, score in drawn], axis=1)
    at_goal, scores = drawn[0]
    at_goal_float, scores_float = drawn[0] if crafted.in_8bit else judged(crafted.probes, crafted.success)
    l2 = l2_norm(delta)
    l2_float = l2 if crafted.in_8bit else l2_norm(crafted.probes - original)
    l2_defended = l2
    if not profile.empty:
        l2_defended = l2_norm(profile.numpy(probes8, seeded_entropy(probes8, seed))[: len(rows)] - original)
    return Replay(
        crafted=crafted.success8,
        passed=passed,
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
    """Join the replays of consecutive chunks."""
    names = [field.name for field in fields(Replay)]
    return Replay(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def l2_norm(delta: NDArray[np.float32]) -> Float:
    """L2 norm (N,) of each perturbation (N, H, W, 3), summed in float64."""
    return np.asarray(np.sqrt(np.sum(np.square(delta, dtype=np.float64), axis=(1, 2, 3))))
