"""What a network costs an audit: the same audit of a local file, and of the file behind a real model server here.

    python benchmarks/remote.py --rounds 3

KServe serves the shipped verifier on the loopback. Verifier and server run on one thread each. The local audit and
every remote one take turns, so that a busy machine slows all of them. The ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.served.running import Served, describe
from toolkit import AuditOptions, audit_verifier
from toolkit.audit.results.outcomes import Run
from toolkit.verifiers.manifest import find_manifest

# How the service is called, and how many calls are under way at once.
WAYS = (("grpc", 1), ("grpc", 4), ("binary", 4), ("json", 4))
ATTACKS, SETTINGS = ("gaussian", "square", "cgba"), ("square.budget=100", "cgba.budget=100")


def audit(folder: Path, pairs: int, remote: Path | None) -> tuple[float, Run]:
    """Run an audit in a new folder; its time in seconds, and the run."""
    options = AuditOptions(
        remote=remote, limit=pairs, attacks=ATTACKS, settings=SETTINGS, profiles=("none",), provider="cpu", threads=1,
        run=folder,
    )  # fmt: skip
    start = time.perf_counter()
    run = audit_verifier(options)
    return time.perf_counter() - start, run


def found(run: Run) -> list[object]:
    """What an audit found."""
    return [(s.attack, s.goal, s.asr, s.median_l2) for s in run.assessment.scenarios]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each audit is made")
    parser.add_argument("--pairs", type=int, default=10, help="number of the generated pairs")
    parser.add_argument("--ways", nargs="*", default=[f"{way}-{at_once}" for way, at_once in WAYS])
    given = parser.parse_args()
    ways = [(way, at_once) for way, at_once in WAYS if f"{way}-{at_once}" in given.ways]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        served = Served(folder / "models")
        served.folder.mkdir()
        shutil.copy(find_manifest("facenet-mini").model, served.folder / "bare.onnx")
        served.start()
        try:
            times: dict[str, list[float]] = {"local file": []}
            for number in range(given.rounds):
                seconds, near = audit(folder / f"near{number}", given.pairs, None)
                times["local file"].append(seconds)
                for way, at_once in ways:
                    limits = f"retries = 1\nconcurrency = {at_once}"
                    remote = describe(folder, served, way, limits=limits, calls=1_000_000, batch=8)
                    name = f"{way}, {at_once} at once"
                    seconds, far = audit(folder / f"{name} {number}", given.pairs, remote)
                    times.setdefault(name, []).append(seconds)
                    if found(far) != found(near):
                        print(f"{name}: finds something else than the audit of the file")
        finally:
            served.stop()
    base = statistics.median(times["local file"])
    print(f"\n{given.pairs} pairs, {', '.join(ATTACKS)}, the median of {given.rounds}\n")
    print("| audit of | s | times the local one |\n| --- | --: | --: |")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.1f} | {middle / base:.2f} |")


if __name__ == "__main__":
    main()
