"""What a hardened verifier costs in time, beside the bare one, both in turn in one process.

python benchmarks/hardened_cost.py facenet-mini --profiles mean3,n2c --batch 32 --threads 1

A profile that votes is compared with as many crops as it has draws, one call at a time: the least of several turns.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from toolkit.defenses.base import is_random
from toolkit.profiles.harden import deploy, harden
from toolkit.profiles.profile import Profile, find_profile
from toolkit.verifiers.edge import model_input
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import Execution, read_model

_TURNS = 15


def cost_of_draws(manifest: Manifest, profile: Profile, threads: int = 0) -> str:
    """How long the hardened file takes for one crop, beside N times the denoiser and the verifier without the vote."""
    crop = np.random.default_rng(0).random((1, manifest.input.height, manifest.input.width, 3), np.float32)
    steps = tuple(defense for defense in profile.defenses if not is_random(defense))
    single = Profile("steps", "", steps, "steps")
    execution = Execution("cpu", threads=threads)
    smoothed = deploy(read_model(manifest), manifest, profile, execution, seed=0)
    parts = deploy(read_model(manifest), manifest, single, replace(execution, batch=profile.draws))
    many = np.repeat(crop, profile.draws, axis=0)
    times: list[tuple[float, float]] = []
    for _ in range(_TURNS):
        start = time.perf_counter()
        smoothed.embed(crop)
        middle = time.perf_counter()
        parts.embed(many)
        times.append((middle - start, time.perf_counter() - middle))
    whole, apart = np.min(times, axis=0)
    return (
        f"{profile.name}: one call of {profile.draws} draws: {1000 * whole:.0f} ms; {profile.draws} times the denoiser "
        f"and the verifier: {1000 * apart:.0f} ms; ratio {whole / apart:.2f}"
    )


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
    named = [find_profile(name) for name in args.profiles.split(",")]
    for profile in named:
        if profile.vote is not None:
            print(cost_of_draws(manifest, profile, args.threads))
    profiles = [find_profile("none"), *(profile for profile in named if profile.vote is None)]
    if len(profiles) == 1:
        return
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
