"""Evidence: reads probes and norms from an audit's artifacts, for figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.craft import Series, attacked_model, read_crafted
from toolkit.audit.crafting.jobs import InProcess
from toolkit.audit.embedding import run_clean_by
from toolkit.audit.replaying.replay import l2_norm
from toolkit.audit.request import Request
from toolkit.audit.results.outcomes import Run
from toolkit.audit.results.record import read_record
from toolkit.errors import InputError
from toolkit.pixels import to_unit
from toolkit.profiles.profile import Profile
from toolkit.progress import SILENT, Progress
from toolkit.verifiers.crops import crop_for
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.runtime import Execution

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


def gather(request: Request, folder: Path, progress: Progress = SILENT) -> Evidence:
    """Read the evidence from the folder of a run, chunk by chunk. The clean crops' embeddings are there too.

    Args:
        request: the request of the run.
        folder: the folder of the run.
        progress: shows the clean crops.
    """
    crops, bench = request.crops, Bench(request.manifest, request.execution, request.seed)
    genuine = np.array([pair.genuine for pair in crops.pairs])
    norms: dict[tuple[str, str], NDArray[np.float64]] = {}
    dodged: dict[str, NDArray[np.bool_]] = {}
    for profile in request.profiles:
        eligible = run_clean_by(InProcess(bench), bench, profile, crops, folder, folder / "probes", progress).eligible
        for attack in request.attacks:
            success, norm = np.zeros(len(genuine), np.bool_), np.zeros(len(genuine))
            series = _series(request, attack, profile, folder)
            for chunk in read_crafted(series):
                success[chunk.rows] = chunk.crafted.success
                norm[chunk.rows] = l2_norm(chunk.crafted.probes - to_unit(series.clean(chunk.rows)))
            success &= eligible
            norms[attack.name, profile.name] = norm[success]
            if profile.empty:
                dodged[attack.name] = success & genuine
    shown = int(np.argmax(np.sum(list(dodged.values()), axis=0))) if dodged else 0
    bare = next((p for p in request.profiles if p.empty), None)
    attacked = {} if bare is None else _attacked(request, bare, shown, folder)
    probe, reference = to_unit(crops.images[crops.index[shown]])
    example = Example(reference, probe, attacked)
    corrected = {}
    if "gaussian" in attacked:
        corrected = {"probe": probe, "attacked": attacked["gaussian"]}
        for profile in request.profiles:
            if not profile.empty:
                gaussian = attacked["gaussian"][None]
                corrected[profile.name] = profile.numpy(gaussian, seeded_entropy(gaussian, request.seed))[0]
    return Evidence(example, corrected, norms)


def _series(request: Request, attack: Attack, profile: Profile, folder: Path) -> Series:
    model, decision = attacked_model(request.manifest, attack), request.manifest.decision
    return Series(attack, profile, model, request.crops, decision, request.seed, folder / "probes")


def _attacked(request: Request, profile: Profile, shown: int, folder: Path) -> dict[str, Image]:
    """The float probe of the pair `shown` after each attack that succeeded on it."""
    found = {}
    for attack in request.attacks:
        series = _series(request, attack, profile, folder)
        for chunk in read_crafted(series, ((rows, path) for rows, path in series.chunks() if shown in rows)):
            at = np.flatnonzero(chunk.rows == shown)[0]
            if chunk.crafted.success[at]:
                found[attack.name] = chunk.crafted.probes[at]
    return found


def evidence_of(run: Run, progress: Progress = SILENT) -> Evidence:
    """Read the evidence of a finished run. Photos, verifier and probes must be in their original places.

    Raises:
        InputError: a file is missing or has changed.
    """
    request = run.request or _request_again(run.folder, progress)
    if not any((run.folder / "probes").glob("*.probes")):
        raise InputError(f"{run.folder / 'probes'}: has no probes to show; give the audit's command again")
    return gather(request, run.folder, progress)


def _request_again(folder: Path, progress: Progress) -> Request:
    record = read_record(folder)
    return record.request(crop_for(record.manifest, record.pairs, progress), Execution())
