"""What an audit costs beside the model itself, and what a second worker gains.

A noise audit of one thread: how many seconds of the processor went to ONNX Runtime, to the attack's own work (noise is
drawn and rounded), and to all else, which is the engine. Then the audit with 1 worker of 2 threads, and with 2 workers
of one, in seconds of the clock. Every audit has a process of its own.

With --gradients, the audit has gradient attacks (FMN and APGD), and only seconds of the clock are printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from toolkit.attacks.apgd import Apgd
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.uniform import Uniform
from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.audit.workers import Workers
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import PairSet, embedded_pairs, load_pairs
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier

_LARGEST_OVERHEAD = 0.05


def request_of(faces: str | None, pairs: int, threads: int, *, gradients: bool) -> Request:
    manifest = find_manifest("facenet-mini")
    assert manifest.alignment is not None  # noqa: S101 - the shipped verifier has one
    loaded = load_pairs(embedded_pairs() if faces is None else Path(faces))
    pair_set = PairSet(loaded.root, loaded.pairs[:: max(1, len(loaded.pairs) // pairs)][:pairs], loaded.source)
    crops = crop_pairs(pair_set, manifest.input.width, manifest.input.height, manifest.alignment.template)
    attacks = (Fmn(steps=50), Apgd()) if gradients else (Gaussian(), Uniform())
    execution = Execution("cpu", threads=threads)
    return Request(manifest, crops, pair_set.source, attacks, (find_profile("none"),), ("perfect",), 0, execution)


class Watch:
    """Seconds of the processor in some methods, of the outermost call where they call each other."""

    def __init__(self, *methods: tuple[type, str]) -> None:
        """Watch methods (class, name) from now on."""
        self.seconds, self.running = 0.0, False
        for owner, name in methods:
            setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, method: Callable[..., object]) -> Callable[..., object]:
        def watched(*given: object, **named: object) -> object:
            if self.running:
                return method(*given, **named)
            self.running, begun = True, time.process_time()
            try:
                return method(*given, **named)
            finally:
                self.running, self.seconds = False, self.seconds + time.process_time() - begun

        return watched


def measure_audit(faces: str | None, pairs: int, threads: int, workers: str, gradients: bool) -> dict[str, float]:  # noqa: FBT001 - read from JSON
    """Seconds of the clock; and those of the processor, as a whole and in its parts."""
    request = request_of(faces, pairs, threads, gradients=gradients)
    session, verifier = Watch((onnxruntime.InferenceSession, "run")), Watch((RuntimeVerifier, "embed_and_score"))
    crafting, edge = Watch((Gaussian, "craft"), (Uniform, "craft")), Watch()
    inside = RuntimeVerifier.embed

    def embed(self: RuntimeVerifier, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        # Only what attacks ask for goes this way; replays ask for scores as well.
        begun = time.process_time()
        try:
            return inside(self, crops)
        finally:
            edge.seconds += time.process_time() - begun

    RuntimeVerifier.embed = embed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        begun, used = time.perf_counter(), time.process_time()
        run_audit(request, Path(folder) / "run", workers=Workers(workers))
        seconds, used = time.perf_counter() - begun, time.process_time() - used
    attack = crafting.seconds - edge.seconds
    return {
        "pairs": len(request.crops.pairs),
        "seconds": seconds,
        "model": session.seconds,
        "attack": attack,
        "engine": used - session.seconds - attack,
        "edge": verifier.seconds - session.seconds,
    }


def in_its_own_process(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", json.dumps(arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - this file itself
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--faces", help="labeled pairs, as of an audit; default: the embedded ones, of which there are 160"
    )
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--overhead-alone", action="store_true", help="leave the workers out")
    parser.add_argument("--gradients", action="store_true", help="measure gradient attacks instead of noise")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure_audit(*json.loads(asked.one))))
        return
    audits, two_threads, two_workers = [], [], []
    for _ in range(asked.repeats):
        audits.append(in_its_own_process(asked.faces, asked.pairs, 1, "1", asked.gradients))
        if asked.overhead_alone:
            continue
        two_threads.append(in_its_own_process(asked.faces, asked.pairs, 2, "1", asked.gradients)["seconds"])
        two_workers.append(in_its_own_process(asked.faces, asked.pairs, 1, "2", asked.gradients)["seconds"])
    if asked.gradients:
        one = min(audit["seconds"] for audit in audits)
        others = f"2 threads {min(two_threads):.1f} s, 2 workers {min(two_workers):.1f} s" if two_threads else ""
        print(f"{asked.pairs} pairs: 1 thread {one:.1f} s, {others}")
        return
    best = min(audits, key=lambda found: found["engine"] / found["model"])
    overhead = best["engine"] / best["model"]
    print(
        f"{best['pairs']:.0f} pairs: ONNX Runtime {best['model']:.1f} s, attacks {best['attack']:.1f} s, "
        f"engine {best['engine']:.1f} s, of which the verifier's edge {best['edge']:.1f} s"
    )
    missed = "" if overhead <= _LARGEST_OVERHEAD else f", above {_LARGEST_OVERHEAD:.0%}"
    print(f"the engine's overhead is {overhead:.1%} of ONNX Runtime{missed}")
    if not asked.overhead_alone:
        print(f"1 worker with 2 threads {min(two_threads):.1f} s, 2 workers {min(two_workers):.1f} s")


if __name__ == "__main__":
    main()
