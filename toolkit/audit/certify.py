"""Certification: how far a probe may be moved, in any way, before the smoothed verifier decides otherwise.

The smoothed verifier decides as most of its draws do when Gaussian noise is added to the probe (Cohen et al. 2019). The
radius holds for it alone: a verifier that is deployed without the noise and the vote has no such guarantee.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Bools, to_unit
from toolkit.audit.artifacts import decode_votes, encode_votes, read_artifact
from toolkit.audit.bench import Bench
from toolkit.audit.craft import CHUNK, pair_generator
from toolkit.audit.group import reference_distances
from toolkit.audit.plan import GOALS, Goal
from toolkit.audit.replay import CleanRun, Float
from toolkit.errors import UsageError
from toolkit.faces.crops import CropSet
from toolkit.files import write_bytes
from toolkit.profiles.profile import Profile
from toolkit.statistics.certification import certified_radius
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.scores import is_same

# L2 radii at which reports say how many pairs are certified.
RADII = (0.1, 0.25, 0.5, 1.0)
# Draws that choose the decision, before others say how sure it is.
_SELECTION = 100
_BATCH = 64


@dataclass(frozen=True)
class Smoothing:
    """Noise of standard deviation `sigma`, in units of the pixel range; draws for each pair; one-sided confidence.

    Raises:
        UsageError: a value makes no sense.
    """

    sigma: float
    samples: int = 1000
    confidence: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 10:
            raise UsageError(f"noise to certify with is {self.sigma:g}; it must be above 0 and at most 10")
        if certified_radius(Rate(self.samples, self.samples), self.sigma, self.confidence) is None:
            raise UsageError(f"{self.samples} draws can never certify anything at confidence {self.confidence:g}")

    @property
    def draws(self) -> int:
        """Images that one pair takes: those that choose the decision, and `samples`."""
        return _SELECTION + self.samples


@dataclass(frozen=True)
class PairCertificates:
    """One value for each of n pairs, behind one profile.

    Attributes:
        profile: its name.
        sigma, samples, confidence: see `Smoothing`; the confidence is of each certificate by itself.
        same: (n,) int64: 1 where the smoothed verifier accepts, 0 where it does not, -1 where it abstains.
        radius: (n,), L2 in units of the pixel range; 0 where it abstains.
    """

    profile: str
    sigma: float
    samples: int
    confidence: float
    same: NDArray[np.int64]
    radius: Float


@dataclass(frozen=True)
class CertificationResult:
    """The pairs of one goal behind one profile: what no attack can do to the smoothed verifier.

    Attributes:
        profile, sigma, samples, confidence: see `PairCertificates`.
        goal: against which the pairs are certified; dodging of genuine ones.
        correct: pairs that the smoothed verifier decides correctly, over all pairs.
        abstained: pairs on which it abstains, over all pairs.
        at_radius: pairs decided correctly with a radius of at least so much, over all pairs.
        median_radius: of those decided correctly; None where there are none.
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


def certify(
    bench: Bench,
    profile: Profile,
    smoothing: Smoothing,
    crops: CropSet,
    clean: CleanRun,
    folder: Path,
    done: Callable[[int], None],
) -> PairCertificates:
    """Certify every pair; votes are kept in `folder`, where an interrupted audit finds them again.

    A draw accepts when the decision is "same" and a detector does not flag it. Noise is clipped to valid pixels, which
    is a part of the verifier that is smoothed. References are as enrolled, without noise.

    Args:
        bench: the verifier.
        profile: it is behind.
        smoothing: how.
        crops: n pairs.
        clean: the same verifier on the pairs as they are.
        folder: of the artifacts.
        done: called with each number of pairs done.
    """
    votes = []
    for start in range(0, len(crops.pairs), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(crops.pairs)))
        path = folder / f"{_key(bench, profile, smoothing, crops, rows)}.votes"
        found = decode_votes(read_artifact(path), len(rows))
        if found is None:
            found = np.stack([_votes(bench, profile, smoothing, crops, clean, int(row)) for row in rows])
            write_bytes(path, encode_votes(found))
        votes.append(found)
        done(len(rows))
    same, radius = np.full(len(crops.pairs), -1, np.int64), np.zeros(len(crops.pairs))
    for row, (chosen, accepted) in enumerate(np.concatenate(votes)):
        accepts = bool(2 * chosen > _SELECTION)
        agree = int(accepted if accepts else smoothing.samples - accepted)
        found_radius = certified_radius(Rate(agree, smoothing.samples), smoothing.sigma, smoothing.confidence)
        if found_radius is not None:
            same[row], radius[row] = accepts, found_radius
    return PairCertificates(profile.name, **asdict(smoothing), same=same, radius=radius)


def _votes(
    bench: Bench, profile: Profile, smoothing: Smoothing, crops: CropSet, clean: CleanRun, row: int
) -> NDArray[np.int64]:
    """How many of the draws that choose accept, and how many of the others."""
    verifier, decision = bench.deployed(profile), bench.manifest.decision
    generator = pair_generator(bench.seed, f"certify {smoothing.sigma:g}", crops.pairs[row].id)
    probe = to_unit(crops.images[crops.index[row, :1]])
    accepted = []
    for start in range(0, smoothing.draws, _BATCH):
        count = min(_BATCH, smoothing.draws - start)
        noise = generator.standard_normal((count, *probe.shape[1:]), dtype=np.float32)
        draws = np.clip(probe + np.float32(smoothing.sigma) * noise, 0, 1)
        embeddings, scores = verifier.embed_and_score(draws)
        d = reference_distances(crops, np.full(count, row), clean.embeddings, embeddings, decision.metric)
        accepted.append(is_same(decision, d) & (scores <= clean.alarm))
    votes = np.concatenate(accepted)
    return np.array([votes[:_SELECTION].sum(), votes[_SELECTION:].sum()], np.int64)


def _key(bench: Bench, profile: Profile, smoothing: Smoothing, crops: CropSet, rows: NDArray[np.intp]) -> str:
    gallery = crops.index[rows, 1] if crops.gallery is None else crops.gallery
    pixels = hashlib.sha256(crops.images[crops.index[rows, 0]].tobytes() + crops.images[gallery].tobytes())
    content = {
        "votes": [asdict(smoothing), _SELECTION, _BATCH],
        "profile": profile.sha256,
        "model": bench.model_sha256,
        "decision": asdict(bench.manifest.decision),
        "seed": bench.seed,
        "pairs": [crops.pairs[row].id for row in rows],
        "images": pixels.hexdigest(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def certification_results(certificates: PairCertificates, genuine: Bools) -> list[CertificationResult]:
    """The two goals; one without pairs is left out."""
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
        )
        for goal, kind in zip(GOALS, (genuine, ~genuine), strict=True)
        if kind.any()
    ]


def _rate(hit: Bools, of: Bools) -> Rate:
    return Rate(int(hit.sum()), int(of.sum()))
