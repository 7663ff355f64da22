"""Pairs whose changed probes a job presents to the deployed verifier."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import measurer
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.craft import CHUNK
from toolkit.audit.crafting.jobs import Parcel, packed_alarm, packed_profile, unpacked_alarm, unpacked_profile
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, Images
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import is_same


def chunk_rows(crops: CropSet) -> Iterator[NDArray[np.intp]]:
    """The rows of each chunk of pairs."""
    for start in range(0, len(crops.pairs), CHUNK):
        yield np.arange(start, min(start + CHUNK, len(crops.pairs)))


@dataclass(frozen=True)
class Presented:
    """Pairs, and all that their decisions depend on.

    Attributes:
        profile: the deployed profile.
        ids: the ids of m pairs.
        pixels: (m, H, W, 3) uint8, RGB, their clean probes.
        references: (m, k, D), the embeddings of those whom a probe may match: of its reference, or of a whole group.
        decision: metric and threshold.
        alarm: the detector flags an image with a score above this; infinite without a detector.
    """

    profile: Profile
    ids: tuple[str, ...]
    pixels: NDArray[np.uint8]
    references: NDArray[np.float32]
    decision: Decision
    alarm: float

    def accepted(self, bench: Verifiers, pairs: NDArray[np.intp], images: Images) -> Bools:
        """Whether images (N, H, W, 3) pass as probes of the pairs (N,): same person, and not flagged."""
        verifier = bench.deployed(self.profile)
        embeddings, scores = verifier.embed_and_score(images)
        measure = measurer(verifier, self.decision)
        each = [measure(embeddings, self.references[pairs, who]) for who in range(self.references.shape[1])]
        return is_same(self.decision, np.min(each, axis=0)) & (scores <= self.alarm)

    def parcel(self, kind: str, more: dict[str, Any]) -> Parcel:
        """The job of a kind for another process; see `Job.parcel`."""
        header = {
            "profile": packed_profile(self.profile),
            "ids": self.ids,
            "decision": asdict(self.decision),
            "alarm": packed_alarm(self.alarm),
            **more,
        }
        return Parcel(kind, header, {"pixels": self.pixels, "references": self.references})


def presented(
    profile: Profile, crops: CropSet, clean: CleanRun, decision: Decision, rows: NDArray[np.intp]
) -> Presented:
    """Gather the pairs `rows` of a crop set, with the references of a clean run of the same profile."""
    who = crops.index[rows, 1:] if crops.gallery is None else np.tile(crops.gallery, (len(rows), 1))
    references = clean.embeddings[who.ravel()].reshape(*who.shape, -1)
    pixels = crops.images[crops.index[rows, 0]]
    return Presented(profile, tuple(crops.pairs[row].id for row in rows), pixels, references, decision, clean.alarm)


def unpacked_presented(parcel: Parcel) -> Presented:
    """Read the pairs of a parcel.

    Raises:
        InputError: the profile differs from that of the audit.
    """
    header, arrays = parcel.header, parcel.arrays
    return Presented(
        unpacked_profile(*header["profile"]),
        tuple(header["ids"]),
        arrays["pixels"],
        arrays["references"],
        Decision(**header["decision"]),
        unpacked_alarm(header["alarm"]),
    )


def shown_content(bench: Verifiers, profile: Profile, crops: CropSet, rows: NDArray[np.intp]) -> dict[str, object]:
    """Name all that the decisions about the pairs `rows` depend on, apart from what changes their probes."""
    references = crops.index[rows, 1] if crops.gallery is None else crops.gallery
    pixels = hashlib.sha256(crops.images[crops.index[rows, 0]].tobytes() + crops.images[references].tobytes())
    return {
        "profile": profile.sha256,
        "model": [bench.model_sha256, bench.manifest.reading],
        "decision": asdict(bench.manifest.decision),
        "seed": bench.seed,
        "pairs": [crops.pairs[row].id for row in rows],
        "images": pixels.hexdigest(),
    }
