"""Peak memory of a noise audit over more and more synthetic pairs, each number in a process of its own.

The pairs share one photograph in two; crops are of the size of FaceNet's, embeddings of 512 numbers.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from tests.models import write_linear
from toolkit.attacks.gaussian import Gaussian
from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair
from toolkit.faces.rows import gather_rows
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution

_SIDE, _AT_ONCE = 160, 256


def audit(pairs: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1e-3, (_SIDE * _SIDE * 3, 512)).astype(np.float32)
    manifest = read_manifest(write_linear(folder, weights=weights, side=_SIDE, threshold=2.0))
    del weights

    def crops() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, pairs + 1, _AT_ONCE):
            count = min(_AT_ONCE, pairs + 1 - start)
            levels = rng.integers(40, 216, (count, 8, 8, 3)).astype(np.uint8)
            yield levels.repeat(_SIDE // 8, axis=1).repeat(_SIDE // 8, axis=2)

    names = tuple(f"{i}.png" for i in range(pairs + 1))
    every = tuple(Pair(names[i], names[i + 1], i % 2 == 0) for i in range(pairs))
    index = np.stack([np.arange(pairs), np.arange(pairs) + 1], 1)
    request = Request(
        manifest=manifest,
        crops=CropSet(gather_rows(crops(), folder), names, every, index, ()),
        pairs_source="synthetic",
        attacks=(Gaussian(levels=2, draws=1),),
        profiles=(find_profile("none"),),
        knowledge=("zero",),
        seed=0,
        execution=Execution("cpu", threads=1),
    )
    run_audit(request, folder / "run")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{pairs:8} pairs: peak {peak / 1e6:7.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", default="1000,10000", help="numbers of pairs; 100000 takes 25 GB of disk")
    parser.add_argument("--folder", type=Path, help="where the disk is; by default the system's temporary folder")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is not None:
        audit(asked.one, asked.folder)
        return
    for pairs in asked.pairs.split(","):
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            command = [sys.executable, __file__, "--one", pairs, "--folder", folder]
            subprocess.run(command, check=True)  # noqa: S603 - this file itself


if __name__ == "__main__":
    main()
