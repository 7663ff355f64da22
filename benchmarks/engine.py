"""What an audit costs beside the model itself, and what a second worker gains.

One process for each line, all on the same pairs, in turns: a noise audit; ONNX Runtime alone on as many images as the
audit ran, in batches of the same size; the audit with 1 worker of 2 threads, and with 2 workers of one.
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

from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.uniform import Uniform
from toolkit.audit import run as audit_run
from toolkit.audit.bench import Bench
from toolkit.audit.run import Request, run_audit
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import PairSet, embedded_pairs, load_pairs
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier

_LARGEST_OVERHEAD = 0.05


class Silent:
    """No progress."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:  # noqa: ARG002 - as the protocol says
        """Nobody is told."""
        return lambda done: None  # noqa: ARG005


def request_of(pairs: int, threads: int) -> Request:
    manifest = find_manifest("facenet-mini")
    assert manifest.alignment is not None  # noqa: S101 - the shipped verifier has one
    loaded = load_pairs(embedded_pairs())
    pair_set = PairSet(loaded.root, loaded.pairs[:: max(1, len(loaded.pairs) // pairs)][:pairs], loaded.source)
    crops = crop_pairs(pair_set, manifest.input.width, manifest.input.height, manifest.alignment.template)
    attacks, profiles = (Gaussian(), Uniform()), (find_profile("none"),)
    execution = Execution("cpu", threads=threads)
    return Request(manifest, crops, pair_set.source, attacks, profiles, ("zero",), 0, execution)


def measure_audit(pairs: int, threads: int, workers: str) -> dict[str, float]:
    """Seconds of an audit; of one without workers also the images it ran and the seconds ONNX Runtime needs for them."""
    request, benches = request_of(pairs, threads), []

    def kept(*given: object) -> Bench:
        benches.append(Bench(*given))  # type: ignore[arg-type]
        return benches[0]

    audit_run.Bench = kept  # type: ignore[assignment, misc]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run_audit(request, Path(folder) / "run", Silent(), workers)
        seconds = time.perf_counter() - begun
    images = benches[0].deployed(request.profiles[0]).images_run
    return {"pairs": len(request.crops.pairs), "seconds": seconds, "images": images}


def measure_alone(images: int, threads: int) -> float:
    """Seconds of ONNX Runtime for so many images, its session loaded."""
    verifier = RuntimeVerifier(find_manifest("facenet-mini"), execution=Execution("cpu", threads=threads))
    batch = np.random.default_rng(0).random((verifier.execution.batch, 160, 160, 3), np.float32)
    session, name = verifier._session, verifier.manifest.input.name  # noqa: SLF001 - nothing of ours in between
    session.run(None, {name: batch})
    begun = time.perf_counter()
    for start in range(0, images, len(batch)):
        session.run(None, {name: batch[: images - start]})
    return time.perf_counter() - begun


def in_its_own_process(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", json.dumps(arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - this file itself
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        what, *numbers = json.loads(asked.one)
        print(json.dumps({"seconds": measure_alone(*numbers)} if what == "alone" else measure_audit(*numbers)))
        return
    audits, alone, two_threads, two_workers = [], [], [], []
    for _ in range(asked.repeats):
        audits.append(in_its_own_process("audit", asked.pairs, 1, "1"))
        alone.append(in_its_own_process("alone", int(audits[0]["images"]), 1)["seconds"])
        two_threads.append(in_its_own_process("audit", asked.pairs, 2, "1")["seconds"])
        two_workers.append(in_its_own_process("audit", asked.pairs, 1, "2")["seconds"])
    whole = min(found["seconds"] for found in audits)
    overhead = whole / min(alone) - 1
    print(f"{audits[0]['pairs']:.0f} pairs, {audits[0]['images']:.0f} images, one thread")
    print(f"audit {whole:.1f} s, ONNX Runtime alone {min(alone):.1f} s: overhead {100 * overhead:.1f} %")
    print(f"1 worker with 2 threads {min(two_threads):.1f} s, 2 workers {min(two_workers):.1f} s")
    if overhead > _LARGEST_OVERHEAD:
        print(f"the overhead is above {100 * _LARGEST_OVERHEAD:.0f} %")


if __name__ == "__main__":
    main()
