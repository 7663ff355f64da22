"""Warnings about clean distances: what makes a verifier's numbers worth nothing, whatever attacks it meets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from toolkit.pixels import Bools, Float
from toolkit.statistics.separation import FEWEST_TO_SEPARATE, LEAST_SEPARATION, d_primes
from toolkit.statistics.verification import eer

Code = Literal[
    "degenerate-embeddings",
    "swapped-labels",
    "no-separation",
    "duplicate-pairs",
    "same-image",
    "one-person",
    "detector-alarms",
    "accepts-all",
    "refuses-all",
]
# Distances are stored with 6 digits. Distances that differ less than this share of the threshold are the same.
_SAME = 1e-6


@dataclass(frozen=True)
class Suspicion:
    """A warning about a run's data.

    Attributes:
        code: what is suspicious, for programs.
        text: the same in plain words, with counts.
    """

    code: Code
    text: str


def clean_suspicions(
    distances: Float, genuine: Bools, correct: Bools, threshold: float, behind: str
) -> tuple[Suspicion, ...]:
    """Return what is suspicious about the distances of clean pairs, the gravest first.

    Args:
        distances: (n,), of the pairs; they may have values that are no numbers.
        genuine: (n,), their labels.
        correct: (n,), whether each was decided correctly.
        threshold: of the decision.
        behind: the verifier or the profile, for the message.
    """
    n = len(correct)
    finite = distances[np.isfinite(distances)]
    if n == 0:
        return ()
    found = _degenerate(finite, n, threshold, behind)
    right = int(correct.sum())
    if right < n - right:
        text = (
            f"{behind}: only {right} of {n} clean pairs are decided correctly, less than by chance; the labels may be "
            "swapped"
        )
        found.append(Suspicion("swapped-labels", text))
    if not found and min(int(genuine.sum()), int((~genuine).sum())) >= FEWEST_TO_SEPARATE:
        apart = float(d_primes(distances[genuine], distances[~genuine]))
        if apart < LEAST_SEPARATION:
            text = (
                f"{behind}: hardly tells people apart at any threshold (EER {100 * eer(distances, genuine):.0f} %, d' "
                f"{apart:.1f}); the manifest may describe the input wrongly: see `sixpixels manifest guess`"
            )
            found.append(Suspicion("no-separation", text))
    # A verifier that accepts is correct on genuine pairs and wrong on impostor pairs.
    accepted = np.asarray(correct == genuine)
    both = bool(genuine.any() and not genuine.all())
    seen = (
        f"the threshold is {threshold:g}, the distances are {finite.min():g} to {finite.max():g}" if len(finite) else ""
    )
    if both and accepted.all():
        text = f"{behind}: the verifier accepts all {n} clean pairs, impostors too; {seen}"
        found.append(Suspicion("accepts-all", text))
    if both and not accepted.any():
        text = f"{behind}: the verifier refuses all {n} clean pairs, genuine ones too; {seen}"
        found.append(Suspicion("refuses-all", text))
    return tuple(found)


def _degenerate(finite: Float, n: int, threshold: float, behind: str) -> list[Suspicion]:
    found = []
    if len(finite) < n:
        found.append(
            Suspicion("degenerate-embeddings", f"{behind}: {n - len(finite)} of {n} clean distances are not numbers")
        )
    scale = max(threshold, float(np.abs(finite).max(initial=0.0)))
    if len(finite) > 1 and np.ptp(finite) <= _SAME * scale:
        text = f"{behind}: all {len(finite)} clean distances are {finite[0]:g}; the embeddings do not tell images apart"
        found.append(Suspicion("degenerate-embeddings", text))
    return found
