"""Every shipped profile before every given verifier: the hardened graph beside the NumPy forms, on pairs and on noise.

python benchmarks/agreement.py --pairs LFW --folds 7,8 facenet-mini dlib_resnet.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import to_unit
from toolkit.profiles.agreement import compare_forms
from toolkit.profiles.profile import find_profile, shipped_profiles
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution

NOISE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifiers", nargs="+")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--profiles", default=",".join(sorted(set(shipped_profiles()) - {"none"})))
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    folds = [int(fold) for fold in args.folds.split(",")]
    pairs = load_pairs(args.pairs, limit=args.limit, seed=0, folds=folds)
    execution = Execution("cpu", threads=args.threads)
    console = Console()
    for name in args.verifiers:
        manifest = find_manifest(name)
        spec, template = manifest.input, manifest.alignment.template if manifest.alignment else None
        crops = crop_pairs(pairs, spec.width, spec.height, template)
        noise = np.random.default_rng(0).random((NOISE, spec.height, spec.width, 3), np.float32)
        table = Table(title=f"{manifest.name}: {len(crops.pairs)} pairs of {pairs.source}")
        for column in ("profile", "largest difference", "on noise", "flips", "of a flip to the threshold", "alarms"):
            table.add_column(column, justify="left" if column == "profile" else "right")
        for profile in map(find_profile, args.profiles.split(",")):
            real = compare_forms(manifest, profile, to_unit(crops.images[:]), crops.index, execution)
            random = compare_forms(manifest, profile, noise, np.empty((0, 2), np.intp), execution)
            table.add_row(
                profile.name,
                f"{real.largest_difference:.1e}",
                f"{random.largest_difference:.1e}",
                f"{real.flips}/{real.pairs}",
                f"{100 * real.nearest_flip:.2f} %" if real.flips else "-",
                f"{real.alarms}/{real.crops}" if profile.detector else "-",
            )
        console.print(table)


if __name__ == "__main__":
    main()
