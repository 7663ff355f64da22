"""Parity of an audit, as a job: whether the model that gives the gradients computes what is deployed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.bench import Bench, Verifiers
from toolkit.audit.crafting.artifacts import artifact_name, decode_found, encode_found, hash_of
from toolkit.audit.crafting.craft import attacked_model
from toolkit.audit.crafting.jobs import Parcel, Step, packed_profile, unpacked_profile
from toolkit.faces.crops import CropSet
from toolkit.pixels import to_unit
from toolkit.profiles.profile import Profile
from toolkit.quiet import import_tensorflow
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.parity import Parity, compare

if TYPE_CHECKING:
    from toolkit.attacks.base import Attack

# `sixpixels export` checks parity on many more pairs.
_PAIRS = 100


@dataclass(frozen=True)
class Compared:
    """Parity of the bare verifier, what its gradients come from, and the version of TensorFlow that computed them."""

    parity: Parity
    gradients_from: str
    tensorflow: str


@dataclass(frozen=True)
class ParityJob:
    """Crops (N, H, W, 3) uint8 to compare on the bare verifier and its original, and pairs (n, 2) of their places."""

    bare: Profile
    pixels: NDArray[np.uint8]
    index: NDArray[np.intp]
    decision: Decision

    @property
    def name(self) -> str:
        """See `Job`."""
        return "parity"

    def run(self, bench: Verifiers) -> bytes:
        """Compare the two; see `Job`.

        Raises:
            InputError: the original cannot be loaded.
        """
        from toolkit.verifiers.differentiable import gradients_from

        # No service has an original.
        images, verifiers = to_unit(self.pixels), cast("Bench", bench)
        deployed, original = verifiers.deployed(self.bare), verifiers.gradients(self.bare)
        parity = compare(deployed.embed(images), original.embed(images), self.index, self.decision, deployed.provider)
        return encode_found(Compared(parity, gradients_from(bench.manifest), import_tensorflow().__version__))

    def parcel(self) -> Parcel:
        """See `Job`."""
        header = {"bare": packed_profile(self.bare), "decision": asdict(self.decision)}
        return Parcel("parity", header, {"pixels": self.pixels, "index": self.index})


def parity_job(parcel: Parcel, seed: int) -> ParityJob:  # noqa: ARG001 - nothing is random
    """Read the job in a parcel.

    Raises:
        InputError: the profile differs from that of the audit.
    """
    header, arrays = parcel.header, parcel.arrays
    bare = unpacked_profile(*header["bare"])
    return ParityJob(bare, arrays["pixels"], arrays["index"], Decision(**header["decision"]))


def parity_step(bench: Bench, bare: Profile, attack: Attack, crops: CropSet, artifacts: Path) -> Step[None, Compared]:
    """The step that compares the bare verifier with its original on at most 100 clean pairs.

    Args:
        bench: the verifiers.
        bare: the empty profile.
        attack: one that uses gradients.
        crops: the pairs.
        artifacts: folder of the artifacts.
    """
    pairs = crops.index[:_PAIRS]
    used, index = np.unique(pairs, return_inverse=True)
    job = ParityJob(bare, crops.images[used], index.reshape(pairs.shape), bench.manifest.decision)
    content = {
        "parity": hash_of({"pixels": job.pixels, "index": job.index}),
        "model": [attacked_model(bench.manifest, attack), bench.execution.provider],
        "decision": asdict(job.decision),
    }
    path = artifacts / f"{artifact_name(content)}.found"
    return Step(job.name, None, path, partial(decode_found, kind=Compared), lambda: job)
