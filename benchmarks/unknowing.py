"""How far attackers get who do not know the profile: smallest perturbations beside those that spend the budget.

python benchmarks/unknowing.py facenet-mini --pairs LFW --folds 7,8 --limit 60

Each attack crafts its probes for the bare verifier. The probes are replayed through each deterministic profile. Printed
are 8-bit successes over eligible pairs within the budget, with 95 % Wilson intervals. `stretched` is FMN's
perturbation, scaled to the budget along its own direction.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from loading import crops_of
from numpy.typing import NDArray

from toolkit.attacks.apgd import Apgd
from toolkit.attacks.apgd_l2 import ATTACK as APGD_L2
from toolkit.attacks.base import Task, flipped
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.momentum import Momentum
from toolkit.attacks.momentum_l2 import ATTACK as MOMENTUM_L2
from toolkit.attacks.norms import per_image, sizes
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.crafting.craft import make_task
from toolkit.audit.plan import GOALS, Goal
from toolkit.audit.suites import BUDGET, balls
from toolkit.faces.crops import CropSet
from toolkit.pixels import Images, to_8bit, to_unit
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import find_profile, shipped_profiles
from toolkit.report.terminal import whole_percent
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import Decision, find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.scores import distances
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.white_box import WhiteBox


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--budget", type=float, default=BUDGET, help="an RMS in 1/255")
    parser.add_argument("--profiles", default=",".join(name for name in shipped_profiles() if name != "none"))
    args = parser.parse_args()
    manifest = find_manifest(args.verifier)
    decision, model = manifest.decision, read_model(manifest)
    crops, _ = crops_of(manifest, args.pairs, args.folds, args.limit)
    profiles = [profile for profile in map(find_profile, args.profiles.split(",")) if not profile.random]
    deployed = {profile.name: deploy(model, manifest, profile, Execution("cpu")) for profile in profiles}
    clean = {name: run_clean(verifier, crops, decision) for name, verifier in deployed.items()}
    bare = find_profile("none")
    runtime = deploy(model, manifest, bare, Execution("cpu"))
    known = run_clean(runtime, crops, decision)
    rows = np.flatnonzero(known.eligible)
    white = WhiteBox(runtime, TensorFlowVerifier(manifest, bare.tensorflow))
    attackers = attacked(white, crops, rows, known, decision, args.budget)
    print(f"{manifest.name}, {args.pairs}: 8-bit successes within RMS {args.budget:g}/255, % [95 %]")
    for goal in GOALS:
        print(f"\n{goal}\n\n| profile | pairs | {' | '.join(attackers)} |\n| --- | --- |{' --- |' * len(attackers)}")
        for name, verifier in deployed.items():
            rates = [
                success(verifier, clean[name], crops, rows, probes, decision, args.budget, goal)
                for probes in attackers.values()
            ]
            print(f"| `{name}` | {rates[0].trials} | {' | '.join(map(whole_percent, rates))} |", flush=True)


def attacked(
    white: WhiteBox, crops: CropSet, rows: NDArray[np.intp], clean: CleanRun, decision: Decision, budget: float
) -> dict[str, NDArray[np.uint8]]:
    """The 8-bit probes of each attacker on the bare verifier, whether they succeed there or not."""
    at = balls(budget, crops.images[0].size)
    attacks = (
        Fmn(),
        Apgd(epsilon=at.linf),
        replace(APGD_L2, epsilon=at.l2),
        Momentum(epsilon=at.linf),
        replace(MOMENTUM_L2, epsilon=at.l2),
    )
    found = {}
    for attack in attacks:
        task = make_task(attack.name, crops, rows, clean.embeddings[crops.index[rows, 1]], decision, 0, clean.alarm)
        crafted = attack.craft(white, task)
        if attack.name == "fmn":
            found["fmn"] = crafted.probes8
            found["stretched"] = to_8bit(stretched(task, crafted.probes, 0.999 * at.l2))
        else:
            found[attack.name] = crafted.probes8
    return found


def stretched(task: Task, probes: Images, length: float) -> Images:
    """The perturbations, scaled to an L2 norm."""
    delta = probes - task.probes
    return np.clip(task.probes + delta * per_image(length / np.maximum(sizes("l2", delta), 1e-12)), 0, 1)


def success(
    verifier: RuntimeVerifier,
    clean: CleanRun,
    crops: CropSet,
    rows: NDArray[np.intp],
    probes: NDArray[np.uint8],
    decision: Decision,
    budget: float,
    goal: Goal,
) -> Rate:
    """What gets through a profile within the budget, for one goal."""
    genuine = np.array([crops.pairs[row].genuine for row in rows])
    delta = to_unit(probes) - to_unit(crops.images[crops.index[rows, 0]])
    rms = 255 * np.sqrt(np.mean(np.square(delta, dtype=np.float64), axis=(1, 2, 3)))
    embeddings, scores = verifier.embed_and_score(to_unit(probes))
    d = distances(decision.metric, embeddings, clean.embeddings[crops.index[rows, 1]])
    eligible = clean.eligible[rows] & (genuine == (goal == "dodging"))
    fell = eligible & flipped(d, genuine, decision) & (scores <= clean.alarm) & (rms <= budget)
    return Rate(int(fell.sum()), int(eligible.sum()))


if __name__ == "__main__":
    main()
