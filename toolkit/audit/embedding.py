"""The embeddings of all distinct crops behind a profile, chunk by chunk, as jobs whose artifacts a later run finds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.bench import Bench, Verifiers
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.crafting.artifacts import artifact_name, decode_embedded, encode_embedded
from toolkit.audit.crafting.code import profile_code
from toolkit.audit.crafting.jobs import InProcess, Parcel, Pool, Step, finish_all, packed_profile, unpacked_profile
from toolkit.faces.crops import CropSet
from toolkit.pixels import to_unit
from toolkit.profiles.harden import hardened_manifest
from toolkit.profiles.profile import Profile
from toolkit.progress import Progress
from toolkit.verifiers.crops import BATCH, Embedded
from toolkit.verifiers.manifest import Manifest


@dataclass(frozen=True)
class EmbedJob:
    """Crops (N, H, W, 3) uint8 to embed behind a profile."""

    profile: Profile
    pixels: NDArray[np.uint8]

    @property
    def name(self) -> str:
        """See `Job`."""
        return f"clean crops on {self.profile.name}"

    def run(self, bench: Verifiers) -> bytes:
        """Embed the crops; see `Job`."""
        return encode_embedded(*bench.deployed(self.profile).embed_and_score(to_unit(self.pixels)))

    def parcel(self) -> Parcel:
        """See `Job`."""
        return Parcel("embed", {"profile": packed_profile(self.profile)}, {"pixels": self.pixels})


def embed_job(parcel: Parcel, seed: int) -> EmbedJob:  # noqa: ARG001 - the bench has the seed
    """Read the job in a parcel.

    Raises:
        InputError: the profile differs from that of the audit.
    """
    return EmbedJob(unpacked_profile(*parcel.header["profile"]), parcel.arrays["pixels"])


def run_clean_by(
    pool: Pool, bench: Bench, profile: Profile, crops: CropSet, folder: Path, artifacts: Path, progress: Progress
) -> CleanRun:
    """Do what `run_clean` does, by a pool. The embeddings are saved, so that an interrupted audit can continue.

    Args:
        pool: who embeds. A profile that is not in a file stays in this process.
        bench: the verifiers.
        profile: the deployed profile.
        crops: the pairs.
        folder: folder on whose disk the embeddings are kept while the audit runs.
        artifacts: folder of the artifacts.
        progress: shows the stage.
    """
    width = embedding_width(bench.manifest, profile)
    who = pool if profile.source or profile.empty else InProcess(bench)

    def steps() -> Iterator[Step[int, Embedded]]:
        for start in range(0, len(crops.images), BATCH):
            pixels = crops.images[start : start + BATCH]
            path = artifacts / f"{_key(bench, profile, pixels)}.embeddings"
            decode = partial(decode_embedded, count=len(pixels), width=width)
            yield Step(f"clean crops on {profile.name}", len(pixels), path, decode, partial(EmbedJob, profile, pixels))

    def embedded() -> Iterator[Embedded]:
        done = progress.stage(f"clean crops on {profile.name}", len(crops.images))
        for count, found in finish_all(steps(), who):
            yield found
            done(count)

    return run_clean(bench.deployed(profile), crops, bench.manifest.decision, spill=folder, embedded=embedded())


def embedding_width(manifest: Manifest, profile: Profile) -> int:
    """How many numbers the deployed verifier gives for one crop: those of all draws, if they vote."""
    vote = hardened_manifest(manifest, profile).vote
    return manifest.output.size * (1 if vote is None else vote.draws)


def _key(bench: Bench, profile: Profile, pixels: NDArray[np.uint8]) -> str:
    content = {
        "embeddings": [profile.sha256, profile_code(profile)],
        "model": [bench.model_sha256, bench.manifest.reading, bench.execution.provider],
        "seed": bench.seed,
        "images": hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest(),
    }
    return artifact_name(content)
