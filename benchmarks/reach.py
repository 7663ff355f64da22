"""Whether minimum-norm attacks that know a profile get every pair through it: each shipped deterministic profile.

python benchmarks/reach.py facenet-mini --pairs LFW --folds 7,8 --limit 16 --attacks deepfool,fmn,carlini-wagner

Attacks by decisions are compared in the same way:

python benchmarks/reach.py facenet-mini --pairs LFW --limit 6 --profiles none --attacks cgba --set cgba.budget=5000
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from loading import crops_of
from rich.console import Console

from toolkit.attacks.settings import apply_settings
from toolkit.audit.clean.run import run_clean
from toolkit.audit.crafting.craft import make_task
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import find_profile, shipped_profiles
from toolkit.registry import choose, discover
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution, read_model
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.white_box import WhiteBox


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--attacks", default="deepfool,fmn,carlini-wagner")
    parser.add_argument("--profiles", default=",".join(shipped_profiles()))
    parser.add_argument("--set", action="append", default=[], help="ATTACK.PARAMETER=VALUE; may be repeated")
    args = parser.parse_args()
    manifest, console = find_manifest(args.verifier), Console(highlight=False)
    decision, model = manifest.decision, read_model(manifest)
    crops, _ = crops_of(manifest, args.pairs, args.folds, args.limit)
    attacks = apply_settings(choose("attack", args.attacks.split(","), discover("attack")), args.set)
    console.print(f"{manifest.name}, {args.pairs}: 8-bit successes over eligible pairs, median L2, seconds")
    for profile in map(find_profile, args.profiles.split(",")):
        if profile.random:
            continue
        runtime = deploy(model, manifest, profile, Execution("cpu", threads=1))
        original = TensorFlowVerifier(manifest, profile.tensorflow, squeezers=[s.tensorflow for s in profile.squeezers])
        clean = run_clean(runtime, crops, decision)
        rows = np.flatnonzero(clean.eligible)
        references = clean.embeddings[crops.index[rows, 1]]
        line, any_of = [], np.zeros(len(rows), np.bool_)
        for attack in attacks:
            started = time.process_time()
            task = make_task(attack.name, crops, rows, references, decision, 0, clean.alarm)
            crafted = attack.craft(WhiteBox(runtime, original), task)
            any_of |= crafted.success8
            delta = crafted.probes8 / np.float32(255) - task.probes
            norms = np.sqrt(np.sum(np.square(delta), axis=(1, 2, 3)))[crafted.success8]
            median = f"{np.median(norms):.2f}" if len(norms) else "-"
            seconds = time.process_time() - started
            line.append(f"{attack.name} {int(crafted.success8.sum())}/{len(rows)} {median} {seconds:.0f} s")
        low, _ = Rate(int(any_of.sum()), len(rows)).wilson()
        console.print(
            f"{profile.name:10} any {any_of.sum()}/{len(rows)} (at least {100 * low:.0f} %)   " + "   ".join(line)
        )


if __name__ == "__main__":
    main()
