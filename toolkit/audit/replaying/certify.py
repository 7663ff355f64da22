"""Certification by randomized smoothing (Cohen et al. 2019).

The smoothed verifier adds Gaussian noise to many copies of the probe and takes the majority vote of their decisions.
Within a certified radius, no perturbation changes this vote. The certificate holds only for the smoothed verifier. A
verifier that is deployed without the noise and the vote has no such guarantee. A profile with a vote is such a verifier
as it is deployed, and its certificates come from the very draws that decided the clean pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.bench import Bench, Verifiers
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.artifacts import artifact_name, decode_votes, encode_votes
from toolkit.audit.crafting.craft import CHUNK, pair_generator
from toolkit.audit.crafting.jobs import InProcess, Parcel, Pool, Step, finish_all
from toolkit.audit.replaying.certificates import PairCertificates
from toolkit.audit.replaying.lipschitz import certify_bounded
from toolkit.audit.replaying.presented import Presented, chunk_rows, presented, shown_content, unpacked_presented
from toolkit.errors import UsageError
from toolkit.faces.crops import CropSet
from toolkit.pixels import to_unit
from toolkit.profiles.harden import hardened_manifest
from toolkit.profiles.profile import Profile
from toolkit.progress import Progress
from toolkit.statistics.certification import certified_radius, vote_radii
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.hardened import VoteOutput
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.variants import draw_distances

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


def certify_all(
    bench: Verifiers,
    smoothings: Sequence[Smoothing],
    crops: CropSet,
    clean: Mapping[Profile, CleanRun],
    folder: Path,
    progress: Progress,
    pool: Pool,
) -> list[PairCertificates]:
    """Certify what votes or has a Lipschitz bound as it is deployed, and what does not vote at every requested noise.

    A group is refused only if nobody of it is accepted, about which a vote on one reference says nothing. What votes
    then has no certificates.
    """
    certificates = []
    for profile, run in clean.items():
        vote = hardened_manifest(bench.manifest, profile).vote
        if vote is None:
            for smoothing in smoothings:
                done = progress.stage(f"certify {profile.name}, noise {smoothing.sigma:g}", len(crops.pairs))
                certificates.append(certify(bench, profile, smoothing, crops, run, folder, done, pool))
        elif crops.gallery is None:
            certificates.append(certify_vote(vote, bench.manifest, profile.name, crops, run))
        if isinstance(bench, Bench) and profile.empty and bench.manifest.output.lipschitz and crops.gallery is None:
            certificates.append(certify_bounded(bench, profile.name, crops, run))
    return certificates


def certify_vote(
    vote: VoteOutput, manifest: Manifest, profile: str, crops: CropSet, clean: CleanRun
) -> PairCertificates:
    """Certify every pair of a verifier that votes. The model does not run again. What a detector flags abstains.

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
    flagged = clean.scores[crops.index[:, 0]] > clean.alarm
    radius = np.where(flagged, 0.0, vote_radii(vote.draws, vote.sigma, vote.confidence)[votes])
    same = np.where(radius > 0, 2 * votes > vote.draws, -1).astype(np.int64)
    return PairCertificates(profile, vote.sigma, vote.draws, vote.confidence, same, radius)


@dataclass(frozen=True)
class CertifyJob:
    """The votes of some pairs at one noise level."""

    smoothing: Smoothing
    pairs: Presented

    @property
    def name(self) -> str:
        """See `Job`."""
        return f"certificates of {self.pairs.profile.name}"

    def run(self, bench: Verifiers) -> bytes:
        """Count the accepting draws of each pair: among those that select the decision, and among the others."""
        votes = [self._votes(bench, place) for place in range(len(self.pairs.ids))]
        return encode_votes(np.array(votes, np.int64))

    def _votes(self, bench: Verifiers, place: int) -> tuple[int, int]:
        generator = pair_generator(bench.seed, f"certify {self.smoothing.sigma:g}", self.pairs.ids[place])
        probe = to_unit(self.pairs.pixels[place : place + 1])
        accepted = []
        for start in range(0, self.smoothing.draws, _BATCH):
            count = min(_BATCH, self.smoothing.draws - start)
            noise = generator.standard_normal((count, *probe.shape[1:]), dtype=np.float32)
            draws = np.clip(probe + np.float32(self.smoothing.sigma) * noise, 0, 1)
            accepted.append(self.pairs.accepted(bench, np.full(count, place), draws))
        votes = np.concatenate(accepted)
        return int(votes[:_SELECTION].sum()), int(votes[_SELECTION:].sum())

    def parcel(self) -> Parcel:
        """See `Job`."""
        return self.pairs.parcel("certify", {"smoothing": asdict(self.smoothing)})


def certify_job(parcel: Parcel, seed: int) -> CertifyJob:  # noqa: ARG001 - the bench has the seed
    """Read the job in a parcel.

    Raises:
        InputError: the profile differs from that of the audit.
    """
    return CertifyJob(Smoothing(**parcel.header["smoothing"]), unpacked_presented(parcel))


def certify(
    bench: Verifiers,
    profile: Profile,
    smoothing: Smoothing,
    crops: CropSet,
    clean: CleanRun,
    folder: Path,
    done: Callable[[int], None],
    pool: Pool | None = None,
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
        pool: who counts the votes. Default: this process.
    """

    def job(rows: NDArray[np.intp]) -> CertifyJob:
        return CertifyJob(smoothing, presented(profile, crops, clean, bench.manifest.decision, rows))

    def steps() -> Iterator[Step[NDArray[np.intp], NDArray[np.int64]]]:
        for rows in chunk_rows(crops):
            path = folder / f"{_key(bench, profile, smoothing, crops, rows)}.votes"
            decode = partial(decode_votes, count=len(rows))
            yield Step(f"certificates of {profile.name}", rows, path, decode, partial(job, rows))

    votes = []
    for rows, found in finish_all(steps(), pool or InProcess(bench)):
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


def _key(bench: Verifiers, profile: Profile, smoothing: Smoothing, crops: CropSet, rows: NDArray[np.intp]) -> str:
    content = {"votes": [asdict(smoothing), _SELECTION, _BATCH], **shown_content(bench, profile, crops, rows)}
    return artifact_name(content)
