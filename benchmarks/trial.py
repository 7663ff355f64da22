"""What a trial of an ONNX file costs, beside reading it: `python benchmarks/trial.py`.

A file that is not shipped is loaded once in a process of its own before the toolkit's own process loads it. The bar is
one second for a file of 100 MB.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDE = 8
MEGABYTES = (0.01, 10, 100)


def main() -> None:
    """Print the seconds of the first trial of a process, and of further ones by size of the file."""
    sys.path.insert(0, str(ROOT))
    from tests.models import write_linear
    from toolkit.verifiers.manifest import read_manifest
    from toolkit.verifiers.runtime import read_model

    rng = np.random.default_rng(0)
    for number, megabytes in enumerate((MEGABYTES[0], *MEGABYTES)):
        values = int(megabytes * (1 << 20)) // (4 * 3 * SIDE * SIDE)
        weights = rng.random((3 * SIDE * SIDE, max(values, 1)), np.float32)
        with tempfile.TemporaryDirectory() as folder:
            manifest = read_manifest(write_linear(Path(folder), weights=weights, side=SIDE))
            start = time.perf_counter()
            read_model(manifest)
            seconds = time.perf_counter() - start
        which = "first file of the process" if number == 0 else "another file"
        print(f"{which}, {megabytes:g} MB: read and tried in {seconds:.2f} s")


if __name__ == "__main__":
    main()
