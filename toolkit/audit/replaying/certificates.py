"""Certificates of pairs, and their summary in reports."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.plan import GOALS, Goal
from toolkit.pixels import Bools, Float
from toolkit.statistics.intervals import Rate

# Reports give the share of pairs that are certified at these L2 radii.
RADII = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class PairCertificates:
    """The certificates of n pairs behind one profile.

    Attributes:
        profile: name of the profile.
        sigma, samples, confidence: see `Smoothing`. The confidence holds for each certificate by itself. Of a Lipschitz
            bound, which needs no noise, they are 0, 0 and 1.
        same: (n,) int64, the smoothed decision: 1 accepts, 0 rejects, -1 abstains.
        radius: (n,), certified L2 radius in units of the pixel range; 0 if it abstains.
    """

    profile: str
    sigma: float
    samples: int
    confidence: float
    same: NDArray[np.int64]
    radius: Float


@dataclass(frozen=True)
class CertificationResult:
    """The certificates of one goal behind one profile, summarized.

    Attributes:
        profile, sigma, samples, confidence: see `PairCertificates`.
        goal: the attacker's goal that the certificates rule out: dodging for genuine pairs, impersonation for impostor
            pairs.
        correct: pairs that the smoothed verifier decides correctly, over all pairs.
        abstained: pairs on which it abstains, over all pairs.
        at_radius: for each L2 radius, pairs decided correctly with at least this radius, over all pairs.
        median_radius: median radius of the pairs decided correctly; None if there are none.
        deployed: whether what is deployed has these certificates, because its profile votes or it has a Lipschitz
            bound. If not, the smoothed verifier exists only in the audit.
    """

    profile: str
    sigma: float
    samples: int
    confidence: float
    goal: Goal
    correct: Rate
    abstained: Rate
    at_radius: tuple[tuple[float, Rate], ...]
    median_radius: float | None
    deployed: bool


def certification_results(
    certificates: PairCertificates, genuine: Bools, voting: Container[str]
) -> list[CertificationResult]:
    """Summarize certificates for each goal that has pairs.

    Args:
        certificates: the certificates of n pairs.
        genuine: (n,), whether each pair is of one person.
        voting: the names of the profiles that vote as they are deployed.
    """
    c = certificates
    correct = c.same == genuine
    return [
        CertificationResult(
            profile=c.profile,
            sigma=c.sigma,
            samples=c.samples,
            confidence=c.confidence,
            goal=goal,
            correct=_rate(correct & kind, kind),
            abstained=_rate((c.same < 0) & kind, kind),
            at_radius=tuple((r, _rate(correct & kind & (c.radius >= r), kind)) for r in RADII),
            median_radius=float(np.median(c.radius[correct & kind])) if (correct & kind).any() else None,
            deployed=c.profile in voting or not c.samples,
        )
        for goal, kind in zip(GOALS, (genuine, ~genuine), strict=True)
        if kind.any()
    ]


def _rate(hit: Bools, of: Bools) -> Rate:
    return Rate(int(hit.sum()), int(of.sum()))
