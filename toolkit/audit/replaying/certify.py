"""Certification by randomized smoothing (Cohen et al. 2019).

The smoothed verifier adds Gaussian noise to many copies of the probe and takes the majority vote of their decisions.
Within a certified radius, no perturbation changes this vote. The certificate holds only for the smoothed verifier. A
verifier that is deployed without the noise and the vote has no such guarantee. A profile with a vote is such a verifier
as it is deployed, and its certificates come from the very draws that decided the clean pairs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import measurer
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.clean.group import reference_distances
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.artifacts import decode_votes, encode_votes, read_artifact
from toolkit.audit.crafting.craft import CHUNK, pair_generator
from toolkit.audit.plan import GOALS, Goal
from toolkit.errors import UsageError
from toolkit.faces.crops import CropSet
from toolkit.files import write_bytes
from toolkit.pixels import Bools, Float, to_unit
from toolkit.profiles.harden import hardened_manifest
from toolkit.profiles.profile import Profile
from toolkit.progress import Progress
from toolkit.statistics.certification import certified_radius, vote_radii
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.hardened import VoteOutput
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.scores import is_same
from toolkit.verifiers.variants import draw_distances

# Reports give the share of pairs that are certified at these L2 radii.
RADII = (0.1, 0.25, 0.5, 1.0)
# Number of draws that select the decision. Others estimate its probability.
_SELECTION = 100
_BATCH = 64


@dataclass(frozen=True)
class Smoothing:
    """Settings of randomized smoothing.

    Attributes:
        sigma: standard deviation of the noise, in units of the pixel range; above 0 and at most 10.
        samples: noisy draws for each pair.
        confidence: one-sided confidence of each certificate.

    Raises:
        UsageError: a value is out of range, or `samples` is too small for the confidence.
    """

    sigma: float
    samples: int = 1000
    confidence: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 10:
            raise UsageError(f"--certify is {self.sigma:g}; it must be above 0 and at most 10")
        if certified_radius(Rate(self.samples, self.samples), self.sigma, self.confidence) is None:
            raise UsageError(
                f"{self.samples} draws cannot certify anything at confidence {self.confidence:g}; "
                "raise --certify-samples"
            )

    @property
    def draws(self) -> int:
        """Number of noisy images for one pair: those that select the decision, and `samples`."""
        return _SELECTION + self.samples


@dataclass(frozen=True)
class PairCertificates:
    """The certificates of n pairs behind one profile.

    Attributes:
        profile: name of the profile.
        sigma, samples, confidence: see `Smoothing`. The confidence holds for each certificate by itself.
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
        deployed: whether the profile votes itself. If not, the smoothed verifier exists only in the audit.
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


def certify_all(
    bench: Verifiers,
    smoothings: Sequence[Smoothing],
    crops: CropSet,
    clean: Mapping[Profile, CleanRun],
    folder: Path,
    progress: Progress,
) -> list[PairCertificates]:
    """Certify what votes as it is deployed, and everything else at every requested noise level.

    A group is refused only if nobody of it is accepted, about which a vote on one reference says nothing. What votes
    then has no certificates.
    """
    certificates = []
    for profile, run in clean.items():
        vote = hardened_manifest(bench.manifest, profile).vote
        if vote is None:
            for smoothing in smoothings:
                done = progress.stage(f"certify {profile.name}, noise {smoothing.sigma:g}", len(crops.pairs))
                certificates.append(certify(bench, profile, smoothing, crops, run, folder, done))
        elif crops.gallery is None:
            certificates.append(certify_vote(vote, bench.manifest, profile.name, crops, run))
    return certificates


def certify_vote(
    vote: VoteOutput, manifest: Manifest, profile: str, crops: CropSet, clean: CleanRun
) -> PairCertificates:
    """Certify every pair of a verifier that votes. The model does not run again.

    Args:
        vote: the vote.
        manifest: the verifier.
        profile: the name of its profile.
        crops: n pairs.
        clean: the clean run of this profile, whose embeddings hold all draws.
    """
    metric, size = manifest.decision.metric, manifest.output.size
    threshold = vote.threshold or manifest.decision.threshold
    accepted = []
    for start in range(0, len(crops.pairs), CHUNK):
        probes, references = (clean.embeddings[side] for side in crops.index[start : start + CHUNK].T)
        accepted.append((draw_distances(metric, size, probes, references) < threshold).sum(axis=1))
    votes = np.concatenate(accepted)
    radius = vote_radii(vote.draws, vote.sigma, vote.confidence)[votes]
    same = np.where(radius > 0, 2 * votes > vote.draws, -1).astype(np.int64)
    return PairCertificates(profile, vote.sigma, vote.draws, vote.confidence, same, radius)


def certify(
    bench: Verifiers,
    profile: Profile,
    smoothing: Smoothing,
    crops: CropSet,
    clean: CleanRun,
    folder: Path,
    done: Callable[[int], None],
) -> PairCertificates:
    """Certify every pair. The votes are saved in `folder`, so that an interrupted audit can continue.

    A draw accepts if the decision is "same" and the detector does not flag it. Noisy pixels are clipped to [0, 1]; this
    clipping counts as part of the verifier, so that the certificate stays valid. References have no noise.

    Args:
        bench: the verifiers.
        profile: the deployed profile.
        smoothing: the settings.
        crops: n pairs.
        clean: the clean run of the same profile.
        folder: folder of the artifacts.
        done: called with the number of pairs just finished.
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
    bench: Verifiers, profile: Profile, smoothing: Smoothing, crops: CropSet, clean: CleanRun, row: int
) -> NDArray[np.int64]:
    """Count the accepting draws of a pair, (2,): among those that select the decision, and among the others."""
    verifier, decision = bench.deployed(profile), bench.manifest.decision
    generator = pair_generator(bench.seed, f"certify {smoothing.sigma:g}", crops.pairs[row].id)
    probe = to_unit(crops.images[crops.index[row, :1]])
    accepted = []
    for start in range(0, smoothing.draws, _BATCH):
        count = min(_BATCH, smoothing.draws - start)
        noise = generator.standard_normal((count, *probe.shape[1:]), dtype=np.float32)
        draws = np.clip(probe + np.float32(smoothing.sigma) * noise, 0, 1)
        embeddings, scores = verifier.embed_and_score(draws)
        d = reference_distances(crops, np.full(count, row), clean.embeddings, embeddings, measurer(verifier, decision))
        accepted.append(is_same(decision, d) & (scores <= clean.alarm))
    votes = np.concatenate(accepted)
    return np.array([votes[:_SELECTION].sum(), votes[_SELECTION:].sum()], np.int64)


def _key(bench: Verifiers, profile: Profile, smoothing: Smoothing, crops: CropSet, rows: NDArray[np.intp]) -> str:
    gallery = crops.index[rows, 1] if crops.gallery is None else crops.gallery
    pixels = hashlib.sha256(crops.images[crops.index[rows, 0]].tobytes() + crops.images[gallery].tobytes())
    content = {
        "votes": [asdict(smoothing), _SELECTION, _BATCH],
        "profile": profile.sha256,
        "model": [bench.model_sha256, bench.manifest.reading],
        "decision": asdict(bench.manifest.decision),
        "seed": bench.seed,
        "pairs": [crops.pairs[row].id for row in rows],
        "images": pixels.hexdigest(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def certification_results(
    certificates: PairCertificates, genuine: Bools, *, deployed: bool
) -> list[CertificationResult]:
    """Summarize certificates for each goal that has pairs.

    Args:
        certificates: the certificates of n pairs.
        genuine: (n,), whether each pair is of one person.
        deployed: see `CertificationResult`.
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
            deployed=deployed,
        )
        for goal, kind in zip(GOALS, (genuine, ~genuine), strict=True)
        if kind.any()
    ]


def _rate(hit: Bools, of: Bools) -> Rate:
    return Rate(int(hit.sum()), int(of.sum()))
