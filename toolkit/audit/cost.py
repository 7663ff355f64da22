"""What a profile costs: clean error rates, latency and memory, beside the bare verifier in one run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import to_unit
from toolkit.audit.replay import run_clean
from toolkit.errors import InputError, InsufficientError
from toolkit.faces.crops import CropSet
from toolkit.profiles.harden import deploy, harden
from toolkit.profiles.profile import Profile
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import OperatingPoint, eer, fmr_fnmr, fnmr_at_fmr
from toolkit.verifiers.edge import model_input
from toolkit.verifiers.latency import latencies
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model

BATCHES = (1, 32)
# Runs in its own process, so that nothing else is in its memory; imports nothing of this project.
_MEMORY_PROGRAM = """
import json, resource, sys
import numpy, onnxruntime
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
path, feed, provider = sys.argv[1:]
before = peak()
session = onnxruntime.InferenceSession(path, providers=[provider])
session.run(None, {session.get_inputs()[0].name: numpy.load(feed)})
print(json.dumps(peak() - before))
"""


@dataclass(frozen=True)
class Timing:
    """Latency of one call with `batch` crops, in milliseconds, and the memory that model and call took, in bytes."""

    batch: int
    p50: float
    p99: float
    memory: int | None


@dataclass(frozen=True)
class ProfileCost:
    """One profile's price.

    Attributes:
        profile: its name.
        fnmr: at the manifest's threshold.
        fmr: at the manifest's threshold.
        recalibrated: at the threshold that gives the FMR that the bare verifier has here; None where it made no
            false match, or too few pairs show it.
        eer: equal error rate.
        false_alarm: the share of distinct clean crops that the profile's detector flags; None without.
        timings: for each of `BATCHES`.
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
    """What profiles cost before one verifier, the bare one first."""

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
    progress: Callable[[int], None],
) -> Costs:
    """Measure `profiles`; the first should be the empty one, which the others are compared with.

    Args:
        manifest: the verifier.
        crops: clean pairs of both kinds.
        pairs_source: where they come from, in words.
        profiles: what to measure.
        execution: how ONNX Runtime is run.
        repeats: calls per batch size; the profiles take turns, so that a busy moment hits all of them.
        progress: called with the number of profiles done.

    Raises:
        InsufficientError: there are no genuine or no impostor pairs.
        InputError: the verifier cannot be hardened or run.
    """
    genuine = np.array([pair.genuine for pair in crops.pairs])
    if genuine.all() or not genuine.any():
        raise InsufficientError("needs genuine and impostor pairs, has only one of the two kinds")
    model = read_model(manifest)
    graphs = [harden(model, manifest, profile) for profile in profiles]
    runs = []
    for profile in profiles:
        runs.append(run_clean(deploy(model, manifest, profile, execution), crops, manifest.decision))
        progress(1)
    provider = RuntimeVerifier(manifest, model, execution).provider
    timings = _timings(graphs, _feeds(manifest, crops), provider, execution.threads, repeats)
    bare_fmr = fmr_fnmr(runs[0].distances, genuine, manifest.decision.threshold)[0].value
    costs = []
    for profile, run, timing in zip(profiles, runs, timings, strict=True):
        fmr, fnmr = fmr_fnmr(run.distances, genuine, manifest.decision.threshold)
        point = fnmr_at_fmr(run.distances, genuine, bare_fmr) if bare_fmr else None
        equal = float(eer(run.distances, genuine))
        costs.append(ProfileCost(profile.name, fnmr, fmr, point, equal, run.false_alarms, timing))
    return Costs(manifest.name, provider, pairs_source, tuple(costs))


def _feeds(manifest: Manifest, crops: CropSet) -> list[NDArray[np.float32]]:
    places = [np.arange(batch) % len(crops.images) for batch in BATCHES]
    return [np.ascontiguousarray(model_input(to_unit(crops.images[at]), manifest.input)) for at in places]


def _timings(
    graphs: list[bytes], feeds: list[NDArray[np.float32]], provider: str, threads: int, repeats: int
) -> list[tuple[Timing, ...]]:
    milliseconds = latencies(graphs, feeds, provider, threads, repeats)
    return [
        tuple(
            Timing(
                batch,
                float(np.quantile(milliseconds[g, b], 0.5)),
                float(np.quantile(milliseconds[g, b], 0.99)),
                _memory(graph, feeds[b], provider),
            )
            for b, batch in enumerate(BATCHES)
        )
        for g, graph in enumerate(graphs)
    ]


def _memory(graph: bytes, feed: NDArray[np.float32], provider: str) -> int | None:
    """Growth of a fresh process's peak memory by loading and running a model; None where that cannot be asked."""
    if sys.platform == "win32":
        return None
    with tempfile.TemporaryDirectory() as folder:
        path, array = Path(folder) / "model.onnx", Path(folder) / "feed.npy"
        path.write_bytes(graph)
        np.save(array, feed)
        command = [sys.executable, "-c", _MEMORY_PROGRAM, str(path), str(array), provider]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing of a user's
    if done.returncode != 0:
        raise InputError(f"measuring memory failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(json.loads(done.stdout.splitlines()[-1]))
