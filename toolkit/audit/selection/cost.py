"""The cost of profiles: clean error rates, latency and memory, compared with the bare verifier."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.bench import Bench
from toolkit.audit.evaluate import Spread, clean_runs
from toolkit.errors import InputError, InsufficientError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import PairSet, find_pairs
from toolkit.pixels import to_unit
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import Profile, find_profile, shipped_profiles
from toolkit.progress import SILENT, Progress
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import OperatingPoint, eer, fmr_fnmr, fnmr_at_fmr
from toolkit.verifiers.crops import crop_for
from toolkit.verifiers.latency import latencies
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model

BATCHES = (1, 32)
# This program runs in its own process and does not import this toolkit, so that it measures only the model's memory.
_MEMORY_PROGRAM = """
import json, resource, sys
import numpy, onnxruntime
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
path, feed, provider = sys.argv[1:]
before = peak()
session = onnxruntime.InferenceSession(path, providers=[provider])
if session.get_providers()[0] != provider:
    sys.exit(f"the session runs on {session.get_providers()[0]}, not on {provider}")
session.run(None, {session.get_inputs()[0].name: numpy.load(feed)})
print(json.dumps(peak() - before))
"""


@dataclass(frozen=True)
class Timing:
    """Latency and memory of calls with one batch size.

    Attributes:
        batch: crops per call.
        p50, p99: median and 99 % quantile of the latency of a call, in milliseconds.
        memory: memory of the model and the call, in bytes; None on Windows.
    """

    batch: int
    p50: float
    p99: float
    memory: int | None


@dataclass(frozen=True)
class ProfileCost:
    """The cost of one profile.

    Attributes:
        profile: name of the profile.
        fnmr: FNMR at the manifest's threshold.
        fmr: FMR at the manifest's threshold.
        recalibrated: error rates at the threshold where this profile has the bare verifier's FMR on these pairs, which
            is a point estimate. None if the bare verifier makes no false match on these pairs, or if there are too few.
        eer: equal error rate.
        false_alarm: share of distinct clean crops that the profile's detector flags; None without a detector.
        timings: latency and memory for each of `BATCHES`, or for the one batch that the file fixes.
    """

    profile: str
    fnmr: Rate
    fmr: Rate
    recalibrated: OperatingPoint | None
    eer: float
    false_alarm: Rate | None
    timings: tuple[Timing, ...]


@dataclass(frozen=True)
class Costs:
    """The costs of profiles on one verifier; the bare verifier comes first."""

    model: str
    provider: str
    pairs_source: str
    profiles: tuple[ProfileCost, ...]


def measure_costs(
    manifest: Manifest,
    crops: CropSet,
    pairs_source: str,
    profiles: Sequence[Profile],
    execution: Execution,
    repeats: int,
    progress: Progress,
    spread: Spread | None = None,
) -> Costs:
    """Measure the costs of profiles.

    Args:
        manifest: the verifier.
        crops: clean pairs, genuine and impostor.
        pairs_source: the source of the pairs, in words.
        profiles: the profiles. The first must be the empty one, because the others are compared with it.
        execution: how ONNX Runtime runs the models.
        repeats: timed calls per batch size. The profiles take turns, so that a busy moment affects all of them.
        progress: shows the embedding of the crops behind every profile.
        spread: who embeds the crops. Default: this process.

    Raises:
        InsufficientError: there are no genuine or no impostor pairs.
        InputError: the verifier cannot be hardened or run.
    """
    genuine = np.array([pair.genuine for pair in crops.pairs])
    if genuine.all() or not genuine.any():
        raise InsufficientError(f"{pairs_source}: has only genuine or only impostor pairs; give pairs of both kinds")
    model = read_model(manifest)
    graphs = [harden(model, manifest, profile) for profile in profiles]
    runs = clean_runs(Bench(manifest, execution, 0), profiles, crops, spread, progress)
    verifier = RuntimeVerifier(manifest, model, execution)
    provider = verifier.provider
    timings = _timings(graphs, _feeds(verifier, crops), provider, execution.threads, repeats)
    bare_fmr = fmr_fnmr(runs[0].distances, genuine, manifest.decision.threshold)[0].value
    costs = []
    for profile, run, timing in zip(profiles, runs, timings, strict=True):
        fmr, fnmr = fmr_fnmr(run.distances, genuine, manifest.decision.threshold)
        point = fnmr_at_fmr(run.distances, genuine, bare_fmr) if bare_fmr else None
        equal = float(eer(run.distances, genuine))
        costs.append(ProfileCost(profile.name, fnmr, fmr, point, equal, run.false_alarms, timing))
    return Costs(manifest.name, provider, pairs_source, tuple(costs))


def _feeds(verifier: RuntimeVerifier, crops: CropSet) -> list[NDArray[Any]]:
    sizes = (verifier.fixed_batch,) if verifier.fixed_batch else BATCHES
    places = [np.arange(batch) % len(crops.images) for batch in sizes]
    return [verifier.tensor(to_unit(crops.images[at])) for at in places]


def _timings(
    graphs: list[bytes], feeds: list[NDArray[Any]], provider: str, threads: int, repeats: int
) -> list[tuple[Timing, ...]]:
    milliseconds = latencies(graphs, feeds, provider, threads, repeats)
    return [
        tuple(
            Timing(
                len(feed),
                float(np.quantile(milliseconds[g, b], 0.5)),
                float(np.quantile(milliseconds[g, b], 0.99)),
                _memory(graph, feed, provider),
            )
            for b, feed in enumerate(feeds)
        )
        for g, graph in enumerate(graphs)
    ]


def _memory(graph: bytes, feed: NDArray[Any], provider: str) -> int | None:
    """How much loading and running a model raises the peak memory of a new process, in bytes; None on Windows."""
    if sys.platform == "win32":
        return None
    with tempfile.TemporaryDirectory() as folder:
        path, array = Path(folder) / "model.onnx", Path(folder) / "feed.npy"
        path.write_bytes(graph)
        np.save(array, feed)
        command = [sys.executable, "-P", "-c", _MEMORY_PROGRAM, str(path), str(array), provider]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing of a user's
    if done.returncode != 0:
        raise InputError(f"measuring memory failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def measure_profiles(
    model: str | Path | Manifest,
    profiles: Sequence[str | Path | Profile] | None = None,
    pairs: PairSet | Path | str | None = None,
    *,
    repeats: int = 20,
    execution: Execution | None = None,
    spread: Spread | None = None,
    progress: Progress = SILENT,
) -> Costs:
    """Measure the costs of profiles on a verifier: clean errors, latency and memory.

    Args:
        model: a shipped model's name, an .onnx file with a manifest beside it, a `model.toml`, or a manifest.
        profiles: names, .toml files or profiles. Default: all shipped ones.
        pairs: from `load_pairs`, or a path to pairs. Default: the generated faces that ship with the toolkit.
        repeats: timed calls for each profile and batch size.
        execution: how ONNX Runtime runs the models.
        spread: who embeds the crops. Default: this process.
        progress: shows the alignment of the faces, and their embedding behind every profile.

    Raises:
        SixpixelsError: the model, a profile or the pairs cannot be used.
    """
    names = list(shipped_profiles()) if profiles is None else profiles
    chosen = [find_profile(name) for name in dict.fromkeys(["none", *names])]
    manifest, of_pairs = find_manifest(model), find_pairs(pairs)
    crops = crop_for(manifest, of_pairs, progress)
    return measure_costs(manifest, crops, of_pairs.source, chosen, execution or Execution(), repeats, progress, spread)
