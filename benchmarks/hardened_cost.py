"""What a hardened verifier costs in time, beside the bare one, both in turn in one process.

python benchmarks/hardened_cost.py facenet-mini --profiles mean3,n2c --batch 32 --threads 1
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from toolkit.profiles.harden import harden
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.edge import model_input
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import read_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--profiles", default="mean3")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=40)
    args = parser.parse_args()
    manifest = find_manifest(args.verifier)
    spec, model = manifest.input, read_model(manifest)
    profiles = [find_profile(name) for name in ("none", *args.profiles.split(","))]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    sessions = [
        onnxruntime.InferenceSession(harden(model, manifest, profile), options, providers=["CPUExecutionProvider"])
        for profile in profiles
    ]
    crops = np.random.default_rng(0).random((args.batch, spec.height, spec.width, 3), np.float32)
    feed = {spec.name: np.ascontiguousarray(model_input(crops, spec))}
    seconds = np.zeros((len(sessions), args.repeats))
    for repeat in range(-2, args.repeats):  # two rounds warm up
        for i, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(None, feed)
            if repeat >= 0:
                seconds[i, repeat] = time.perf_counter() - start
    # Ratios within a round: whatever slowed the machine slowed both.
    ratios = seconds / seconds[0]
    table = Table(title=f"{manifest.name}, batch {args.batch}, {args.threads} thread(s), {args.repeats} rounds")
    for column in ("profile", "ms per image", "times bare", "quartiles"):
        table.add_column(column, justify="left" if column == "profile" else "right")
    for profile, own, ratio in zip(profiles, seconds, ratios, strict=True):
        low, middle, high = np.quantile(ratio, (0.25, 0.5, 0.75))
        table.add_row(
            profile.name, f"{1000 * np.median(own) / args.batch:.2f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
