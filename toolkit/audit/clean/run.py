"""Runs the deployed verifier on clean pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.attacks.base import flipped, measurer
from toolkit.audit.clean.bench import Deployed
from toolkit.audit.clean.group import Embeddings, reference_distances
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, Float
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.crops import BATCH, Embedded, embed_crops, gather_embedded
from toolkit.verifiers.manifest import Decision


@dataclass(frozen=True)
class CleanRun:
    """The deployed verifier's results on n clean pairs of M distinct crops.

    Attributes:
        embeddings: (M, D) float32, the embedding of every distinct crop.
        distances: (n,), the distance of every pair.
        correct: (n,), whether the pair was decided correctly.
        scores: (M,), the attack score of every distinct crop; zero without a detector.
        alarm: the detector flags a crop with a score above this; infinite without a detector.
        eligible: (n,), whether the pair was decided correctly and its probe was not flagged. Only eligible pairs count,
            because a pair that fails without an attack says nothing about the attack.
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
    verifier: Deployed,
    crops: CropSet,
    decision: Decision,
    batch: int = BATCH,
    spill: Path | None = None,
    embedded: Iterable[Embedded] | None = None,
    progress: Callable[[int], object] | None = None,
) -> CleanRun:
    """Embed every distinct crop once, and decide every pair.

    Args:
        verifier: the deployed verifier.
        crops: the pairs.
        decision: metric and threshold.
        batch: crops per call.
        spill: folder on whose disk the embeddings are kept; None keeps them in memory.
        embedded: the embeddings and scores of all distinct crops, in parts. Default: the verifier computes them.
        progress: called with the number of crops that the verifier has just embedded.
    """
    if embedded is None:
        embedded = embed_crops(verifier, crops.images, progress, batch)
    embeddings, score = gather_embedded(embedded, spill)
    d = np.concatenate(
        [
            reference_distances(crops, rows, embeddings, embeddings[crops.index[rows, 0]], measurer(verifier, decision))
            for rows in (np.arange(len(crops.pairs))[i : i + batch] for i in range(0, len(crops.pairs), batch))
        ]
    )
    genuine = np.array([pair.genuine for pair in crops.pairs])
    correct = ~flipped(d, genuine, decision) & ~np.isnan(d)
    alarm = verifier.manifest.alarm
    unnoticed = score[crops.index[:, 0]] <= alarm
    return CleanRun(embeddings, d, correct, score.astype(np.float64), alarm, correct & unnoticed)
