"""What each profile costs, what it certifies, and what is left of it before an attacker who knows everything.

python benchmarks/holding.py facenet-mini --pairs LFW --limit 200 --profiles none,mean3,smoothed --work build/holding

The attack is APGD in the L2 ball of each budget, through the profile: gradients through its filters and its denoiser,
averaged over draws where it is random, and successes judged by the hardened file on the 8-bit probe, presented once.
Pairs count that are decided rightly without an attack. Certified is what is decided rightly with at least this L2
radius, by the draws of one call. Finished pairs are kept in the work folder, and a second run continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.apgd import Apgd
from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.crafting.attack import attack_verifier
from toolkit.audit.replaying.certify import certify_vote
from toolkit.audit.suites import balls
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.files import write_bytes
from toolkit.pixels import Bools
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import Profile, find_profile
from toolkit.report.terminal import whole_percent
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import Execution, read_model

RADII = (0.1, 0.25, 0.5)
_CHUNK, _TURNS = 20, 7


def fell(
    manifest: Manifest, profile: Profile, crops: CropSet, rows: NDArray[np.intp], attack: Apgd, work: Path
) -> Bools:
    """Which of the pairs `rows` fall to an attack, kept in `work` chunk by chunk."""
    found = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        names = [crops.pairs[row].id for row in chunk]
        content = json.dumps([manifest.sha256, profile.sha256, repr(attack), names])
        path = work / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.json"
        if not path.exists():
            probes, references = (np.asarray(crops.images[side]) for side in crops.index[chunk].T)
            goal = "dodging" if crops.pairs[chunk[0]].genuine else "impersonation"
            result = attack_verifier(manifest, probes, references, goal, attack, profile=profile)  # type: ignore[arg-type]
            write_bytes(path, json.dumps(result.success.tolist()).encode())
            print(f"{profile.name}, {goal}, L2 {attack.epsilon:.2f}: {start + len(chunk)} of {len(rows)}", flush=True)
        found.append(np.array(json.loads(path.read_text()), np.bool_))
    return np.concatenate(found) if found else np.zeros(0, np.bool_)


def success_rate(
    manifest: Manifest, profile: Profile, crops: CropSet, clean: CleanRun, attack: Apgd, work: Path
) -> Rate:
    """Pairs that fell over eligible pairs, of both goals."""
    genuine = np.array([pair.genuine for pair in crops.pairs])
    sides = [np.flatnonzero(clean.eligible & (genuine == kind)) for kind in (True, False)]
    hits = np.concatenate([fell(manifest, profile, crops, rows, attack, work) for rows in sides])
    return Rate(int(hits.sum()), len(hits))


def certified(manifest: Manifest, profile: Profile, crops: CropSet, clean: CleanRun) -> list[str]:
    """The share of pairs that are decided rightly with each radius; dashes without a vote."""
    vote = profile.voting
    if vote is None:
        return ["-"] * len(RADII)
    found = certify_vote(vote, manifest, profile.name, crops, clean)
    right = found.same == np.array([pair.genuine for pair in crops.pairs])
    return [whole_percent(Rate(int((right & (found.radius >= r)).sum()), len(right))) for r in RADII]


def latency(bench: Bench, profile: Profile) -> float:
    """The median seconds of one crop."""
    spec, verifier = bench.manifest.input, bench.deployed(profile)
    crop, times = np.full((1, spec.height, spec.width, 3), 0.5, np.float32), []
    for _ in range(_TURNS):
        start = time.perf_counter()
        verifier.embed(crop)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--profiles", default="none,mean3,n2c,randomized,detector,smoothed")
    parser.add_argument("--budgets", default="2.15,8", help="RMS in 1/255")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    manifest = find_manifest(args.verifier)
    spec, budgets = manifest.input, [float(budget) for budget in args.budgets.split(",")]
    template = manifest.alignment.template if manifest.alignment else None
    pairs = load_pairs(args.pairs, limit=args.limit, folds=[int(fold) for fold in args.folds.split(",")])
    crops = crop_pairs(pairs, spec.width, spec.height, template)
    genuine = np.array([pair.genuine for pair in crops.pairs])
    model, rows = read_model(manifest), []
    for profile in map(find_profile, args.profiles.split(",")):
        bench = Bench(manifest, Execution("cpu"), 0)
        clean = run_clean(bench.deployed(profile), crops, manifest.decision)
        errors = (Rate(int((~clean.correct & side).sum()), int(side.sum())) for side in (genuine, ~genuine))
        attacks = [
            Apgd("apgd-l2", norm="l2", epsilon=balls(b, spec.height * spec.width * 3).l2, steps=args.steps)
            for b in budgets
        ]
        asr = [success_rate(manifest, profile, crops, clean, attack, args.work) for attack in attacks]
        size = len(harden(model, manifest, profile)) / 1e6
        rows.append([
            profile.name, *map(whole_percent, errors), *certified(manifest, profile, crops, clean),
            *map(whole_percent, asr), f"{1000 * latency(bench, profile):.0f}", f"{size:.1f}",
        ])  # fmt: skip
    head = ["profile", "FNMR %", "FMR %", *(f"certified at {r:g} %" for r in RADII)]
    head += [*(f"ASR % within RMS {b:g}/255" for b in budgets), "ms", "MB"]
    print(f"\n{len(crops.pairs)} pairs, {args.steps} steps; 95 % Wilson intervals\n\n| {' | '.join(head)} |")
    print("| --- " * len(head) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
