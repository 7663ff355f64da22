"""Time, memory and disk of whole audits over more and more pairs, from a list of photographs to the report.

python benchmarks/scale.py --pairs 1000,10000,100000

Photographs are made up, small, and of as many people as half the pairs. The audit runs Gaussian noise and a gradient
attack, and computes all statistics; `sixpixels report` then shows the finished run. Both are processes of their own,
measured from the start of Python to the last line. A process's peak is its resident memory, without its children's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.models import write_linear

_SIZE = 16  # of the embedding
# Few, because the peak of a new process includes the memory of the one that starts it.
_CALIBRATED_ON = 200


@dataclass(frozen=True)
class Cost:
    """Seconds of the clock, and the peak of memory in MB, of one process."""

    seconds: float
    peak: float


def photograph(number: int, side: int) -> NDArray[np.uint8]:
    """Photos 2i and 2i + 1 show the same person: the same coarse pattern, a little changed."""
    person, own = np.random.default_rng(number // 2), np.random.default_rng((1, number))
    coarse = person.integers(60, 196, (4, 4, 3)).repeat(side // 4, 0).repeat(side // 4, 1)
    return np.clip(coarse + own.normal(0, 18, (side, side, 3)), 0, 255).astype(np.uint8)


def write_audit(folder: Path, pairs: int, side: int) -> None:
    """Write photographs, a list of pairs and a verifier that decides most of them rightly."""
    (folder / "photos").mkdir()
    lines = ["probe,reference,label,probe_person,reference_person"]
    for i in range(pairs + 1):
        cv2.imwrite(str(folder / "photos" / f"{i}.png"), photograph(i, side))
        if i:
            label = "same" if i % 2 else "different"
            lines.append(f"photos/{i - 1}.png,photos/{i}.png,{label},{(i - 1) // 2},{i // 2}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    values = side * side * 3
    weights = np.random.default_rng(0).normal(0, 1 / np.sqrt(values), (values, _SIZE)).astype(np.float32)
    few = np.stack([photograph(i, side)[..., ::-1].reshape(-1) for i in range(min(pairs, _CALIBRATED_ON) + 1)])
    embeddings = (few / np.float32(255)) @ weights
    d = np.linalg.norm(embeddings[1:] - embeddings[:-1], axis=1)
    # Between the two kinds of pairs: few genuine ones are farther, and few impostors nearer.
    threshold = float((np.quantile(d[0::2], 0.95) + np.quantile(d[1::2], 0.05)) / 2)
    write_linear(folder, weights=weights, side=side, threshold=threshold, name="verifier")


def run(folder: Path, *arguments: str) -> Cost:
    """Run the command line, and measure it."""
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - the arguments of this file
        [sys.executable, "-P", str(ROOT / "cli.py"), *arguments], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: status {process.returncode}")
    return Cost(time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="1000,10000", help="numbers of pairs")
    parser.add_argument("--side", type=int, default=32, help="of the crops, in pixels; a multiple of 4")
    parser.add_argument("--attacks", default="gaussian,fgsm")
    parser.add_argument("--folder", type=Path, help="where the disk is; by default the system's temporary folder")
    args = parser.parse_args()
    print("| pairs | audit, s | ms a pair | peak, MB | run, MB | report, s | its peak, MB |\n" + "| --- " * 7 + "|")
    counts, seconds = [int(count) for count in args.pairs.split(",")], []
    for pairs in counts:
        with tempfile.TemporaryDirectory(dir=args.folder) as made:
            folder = Path(made)
            write_audit(folder, pairs, args.side)
            audit = run(
                folder, "audit", "verifier.onnx", "--pairs", "pairs.csv", "--limit", str(pairs), "--profiles", "none",
                "--attacks", args.attacks, "--set", "gaussian.levels=2", "--set", "gaussian.draws=1",
                "--provider", "cpu", "--run", "run", "-q",
            )  # fmt: skip
            size = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file()) / 1e6
            report = run(folder, "report", "run")
        seconds.append(audit.seconds)
        print(
            f"| {pairs} | {audit.seconds:.1f} | {1000 * audit.seconds / pairs:.2f} | {audit.peak:.0f} | {size:.0f} | "
            f"{report.seconds:.1f} | {report.peak:.0f} |",
            flush=True,
        )
    if len(counts) > 1:
        power = np.polyfit(np.log(counts), np.log(seconds), 1)[0]
        print(f"\ntime grows with the number of pairs to the power of {power:.2f}")


if __name__ == "__main__":
    main()
