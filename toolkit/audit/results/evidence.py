"""Evidence: reads probes and norms from an audit's artifacts, for figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack
from toolkit.audit.clean.run import run_clean
from toolkit.audit.crafting.craft import Chunk, Series, attacked_model, read_crafted
from toolkit.audit.replaying.replay import l2_norm
from toolkit.audit.request import Request
from toolkit.audit.results.outcomes import Run
from toolkit.audit.results.record import read_record
from toolkit.errors import InputError
from toolkit.pixels import to_unit
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import Profile
from toolkit.progress import SILENT, Progress
from toolkit.verifiers.crops import crop_for
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.runtime import Execution, read_model

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One genuine pair, and its probe after each attack on the bare verifier: crops (H, W, 3) float32 in [0, 1]."""

    reference: Image
    probe: Image
    attacked: dict[str, Image]


@dataclass(frozen=True)
class Evidence:
    """The data of the paper's figures.

    Attributes:
        example: a genuine pair on which as many attacks as possible succeed.
        corrected: its probe from the Gaussian noise attack after each profile's defense, by profile, with the clean
            probe (key "probe") and the undefended one (key "attacked"). Empty without that attack.
        norms: L2 norms of the float probes that succeeded on eligible pairs, by attack and profile, for an attacker
            who knows the profile.
    """

    example: Example
    corrected: dict[str, Image]
    norms: dict[tuple[str, str], NDArray[np.float64]]


def gather(request: Request, folder: Path) -> Evidence:
    """Read the evidence from the folder of a run.

    Args:
        request: the request of the run.
        folder: the folder of the run.
    """
    crops, model = request.crops, read_model(request.manifest)
    genuine = np.array([pair.genuine for pair in crops.pairs])
    probes = to_unit(crops.images[crops.index[:, 0]])
    norms: dict[tuple[str, str], NDArray[np.float64]] = {}
    dodged: dict[str, NDArray[np.bool_]] = {}
    for profile in request.profiles:
        verifier = deploy(model, request.manifest, profile, request.execution, request.seed)
        eligible = run_clean(verifier, crops, request.manifest.decision).eligible
        for attack in request.attacks:
            success, norm = np.zeros(len(probes), np.bool_), np.zeros(len(probes))
            for chunk in _chunks(request, attack, profile, folder):
                success[chunk.rows] = chunk.crafted.success
                norm[chunk.rows] = l2_norm(chunk.crafted.probes - probes[chunk.rows])
            success &= eligible
            norms[attack.name, profile.name] = norm[success]
            if profile.empty:
                dodged[attack.name] = success & genuine
    shown = int(np.argmax(np.sum(list(dodged.values()), axis=0))) if dodged else 0
    bare = next((p for p in request.profiles if p.empty), None)
    attacked = {} if bare is None else _attacked(request, bare, shown, folder)
    example = Example(to_unit(crops.images[crops.index[shown, 1]]), probes[shown], attacked)
    corrected = {}
    if "gaussian" in attacked:
        corrected = {"probe": probes[shown], "attacked": attacked["gaussian"]}
        for profile in request.profiles:
            if not profile.empty:
                gaussian = attacked["gaussian"][None]
                corrected[profile.name] = profile.numpy(gaussian, seeded_entropy(gaussian, request.seed))[0]
    return Evidence(example, corrected, norms)


def _chunks(request: Request, attack: Attack, profile: Profile, folder: Path) -> Iterator[Chunk]:
    model, decision = attacked_model(request.manifest, attack), request.manifest.decision
    return read_crafted(Series(attack, profile, model, request.crops, decision, request.seed, folder / "probes"))


def _attacked(request: Request, profile: Profile, shown: int, folder: Path) -> dict[str, Image]:
    """The float probe of the pair `shown` after each attack that succeeded on it."""
    found = {}
    for attack in request.attacks:
        for chunk in _chunks(request, attack, profile, folder):
            at = np.flatnonzero(chunk.rows == shown)
            if len(at) and chunk.crafted.success[at[0]]:
                found[attack.name] = chunk.crafted.probes[at[0]]
    return found


def evidence_of(run: Run, progress: Progress = SILENT) -> Evidence:
    """Read the evidence of a finished run. Photos, verifier and probes must be in their original places.

    Raises:
        InputError: a file is missing or has changed.
    """
    request = run.request or _request_again(run.folder, progress)
    if not any((run.folder / "probes").glob("*.probes")):
        raise InputError(f"{run.folder / 'probes'}: has no probes to show; give the audit's command again")
    return gather(request, run.folder)


def _request_again(folder: Path, progress: Progress) -> Request:
    record = read_record(folder)
    return record.request(crop_for(record.manifest, record.pairs, progress), Execution())
