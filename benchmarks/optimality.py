"""How near our minimum-norm attacks come to the best of all, ours and other libraries', pair by pair, at equal steps.

python benchmarks/optimality.py facenet-mini --pairs LFW --folds 7,8 --limit 16 --profiles none,mean3

The other libraries are Foolbox, ART and adversarial-library. The last one is no dependency (`pip install torch tqdm`,
then `pip install --no-deps adv-lib==0.2.8`); without it, its rows are left out, and the output says so. All attacks
work on float images, on the same pairs and the same TensorFlow form of the verifier behind each profile. ART attacks
one pair at a time, because its attacks reorder batches, in which each pair has a reference of its own.

Printed are the successes, the median norm, the optimality (AttackBench, arXiv:2404.19460) against the smallest norm of
each pair over all attacks, the largest ratio of an attack's norm to that smallest norm, how many images of a pair the
attack gave to the model, and the time. `l0` counts pixels, whatever channels change; the libraries count values.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
from art.attacks.evasion import CarliniL2Method, CarliniLInfMethod, NewtonFool
from art.attacks.evasion import DeepFool as DeepFoolArt
from numpy.typing import NDArray
from rich.console import Console

from attack_libraries.views import AdversarialLibraryView, ArtView, FoolboxView
from toolkit.attacks import fmn_l1, fmn_linf
from toolkit.attacks.base import Attack, Task
from toolkit.attacks.carlini_wagner import CarliniWagner
from toolkit.attacks.ddn import Ddn
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.deepfool_linf import DeepFoolLinf
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.norms import Size, sizes
from toolkit.attacks.sigma_zero import SigmaZero
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import Images, to_unit
from toolkit.profiles.profile import find_profile
from toolkit.statistics.optimality import envelope, optimality
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.scores import distances, is_same
from toolkit.verifiers.tensorflow import TensorFlowVerifier

LIBRARIES = ("ours", "foolbox", "art", "adversarial-library")


@dataclass(frozen=True)
class Run:
    """What an attack found.

    Attributes:
        images: (N, H, W, 3), the pairs' probes.
        judged: how many images of a pair the attack gave to the model.
    """

    images: Images
    judged: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--profiles", default="none,mean3")
    parser.add_argument("--norms", default="l2,linf,l1,l0")
    parser.add_argument("--libraries", default=",".join(LIBRARIES))
    args = parser.parse_args()
    manifest, console = find_manifest(args.verifier), Console(highlight=False, width=120)
    libraries = args.libraries.split(",")
    if "adversarial-library" in libraries and find_spec("adv_lib") is None:
        console.print("adversarial-library is not installed: its attacks are left out")
        libraries.remove("adversarial-library")
    for name in args.profiles.split(","):
        profile = find_profile(name)
        verifier = TensorFlowVerifier(manifest, profile.tensorflow)
        task = right_pairs(manifest, verifier, args.pairs, [int(fold) for fold in args.folds.split(",")], args.limit)
        attacks = [makers(verifier, task, args.steps) for library, makers in MAKERS.items() if library in libraries]
        for norm in args.norms.split(","):
            console.print(f"{manifest.name} behind {name}, {len(task)} pairs, {norm}, {args.steps} steps")
            show(console, verifier, task, norm, {who: run for group in attacks for who, run in group[norm].items()})


def show(
    console: Console, verifier: TensorFlowVerifier, task: Task, norm: Size, attacks: dict[str, Callable[[], Run]]
) -> None:
    """Run the attacks and print a row for each."""
    found, cost = {}, {}
    for who, run in attacks.items():
        start = time.perf_counter()
        result = run()
        cost[who] = f"{result.judged:5.0f} images  {time.perf_counter() - start:6.1f} s"
        found[who] = norms(verifier, task, norm, result.images)
    best = envelope(list(found.values()))
    for who, needed in found.items():
        got = np.isfinite(needed)
        value, ratio = optimality(needed, best), np.max(needed / best)
        median = f"{np.median(needed[got]):9.4f}" if got.any() else "        -"
        console.print(
            f"  {who:26} {int(got.sum()):3}/{len(task)}   median {median}   optimality "
            f"{'-' if value is None else f'{value:.3f}'}   largest ratio {ratio:6.2f}   {cost[who]}"
        )


def right_pairs(manifest: Manifest, verifier: TensorFlowVerifier, source: Path, folds: list[int], limit: int) -> Task:
    """The pairs that the verifier decides correctly."""
    spec, template = manifest.input, None if manifest.alignment is None else manifest.alignment.template
    crops = crop_pairs(load_pairs(source, limit=limit, folds=folds), spec.width, spec.height, template)
    probes, references = (to_unit(crops.images[crops.index[:, k]]) for k in (0, 1))
    embedded, genuine = verifier.embed(references), np.array([pair.genuine for pair in crops.pairs])
    d = distances(manifest.decision.metric, verifier.embed(probes), embedded)
    kept = np.flatnonzero(is_same(manifest.decision, d) == genuine)
    generators = tuple(np.random.default_rng(i) for i in kept)
    return Task(probes[kept], embedded[kept], genuine[kept], manifest.decision, generators, eight_bits=False)


def ours(verifier: TensorFlowVerifier, task: Task, steps: int) -> dict[Size, dict[str, Callable[[], Run]]]:
    """The toolkit's attacks by the norm that they minimize."""

    def run(attack: Attack) -> Callable[[], Run]:
        def craft() -> Run:
            crafted = attack.craft(verifier, task)
            return Run(crafted.probes, float(crafted.evaluations.mean()))

        return craft

    # Three searches share the steps.
    each = max(1, steps // 3)
    return {
        "l2": {
            "fmn": run(Fmn(steps=steps)),
            "ddn": run(Ddn(steps=steps)),
            "deepfool": run(DeepFool(steps)),
            "carlini-wagner": run(CarliniWagner(3, each)),
        },
        "linf": {
            "fmn-linf": run(replace(fmn_linf.ATTACK, steps=steps)),
            "deepfool-linf": run(DeepFoolLinf(steps)),
        },
        "l1": {"fmn-l1": run(replace(fmn_l1.ATTACK, steps=steps))},
        "l0": {"sigma-zero": run(SigmaZero(steps=steps))},
    }


def counted(view: Any, task: Task, run: Callable[[], Images]) -> Callable[[], Run]:
    """The run of a library's attack through its view, with the images that it judged."""

    def craft() -> Run:
        before = view.judged
        return Run(run(), (view.judged - before) / len(task))

    return craft


def foolboxes(verifier: TensorFlowVerifier, task: Task, steps: int) -> dict[Size, dict[str, Callable[[], Run]]]:
    """Foolbox's attacks."""
    view, f = FoolboxView(verifier, task), foolbox.attacks

    def run(attack: Any) -> Callable[[], Run]:
        return counted(view, task, lambda: view.run(attack))

    return {
        "l2": {
            "Foolbox FMN": run(f.L2FMNAttack(steps=steps)),
            "Foolbox DDN": run(f.DDNAttack(steps=steps)),
            "Foolbox DeepFool": run(f.L2DeepFoolAttack(steps=steps, candidates=2)),
            "Foolbox Carlini-Wagner": run(f.L2CarliniWagnerAttack(3, max(1, steps // 3), initial_const=1.0)),
        },
        "linf": {
            "Foolbox FMN": run(f.LInfFMNAttack(steps=steps)),
            "Foolbox DeepFool": run(f.LinfDeepFoolAttack(steps=steps, candidates=2)),
        },
        "l1": {"Foolbox FMN": run(f.L1FMNAttack(steps=steps)), "Foolbox EAD": run(f.EADAttack(3, max(1, steps // 3)))},
        "l0": {"Foolbox FMN": run(f.L0FMNAttack(steps=steps))},
    }


def arts(verifier: TensorFlowVerifier, task: Task, steps: int) -> dict[Size, dict[str, Callable[[], Run]]]:
    """ART's attacks."""
    view, each = ArtView(verifier, task), max(1, steps // 3)

    def run(attack: Any, **parameters: Any) -> Callable[[], Run]:
        return counted(view, task, lambda: view.run(attack, **parameters, batch_size=1, verbose=False))

    return {
        "l2": {
            "ART DeepFool": run(DeepFoolArt, max_iter=steps, epsilon=0.02, nb_grads=2),
            "ART NewtonFool": run(NewtonFool, max_iter=steps),
            "ART Carlini-Wagner": run(CarliniL2Method, binary_search_steps=3, max_iter=each, initial_const=1.0),
        },
        "linf": {"ART Carlini-Wagner": run(CarliniLInfMethod, max_iter=each, initial_const=1.0)},
        "l1": {},
        "l0": {},
    }


def adversarial_library(
    verifier: TensorFlowVerifier, task: Task, steps: int
) -> dict[Size, dict[str, Callable[[], Run]]]:
    """adversarial-library's attacks. Those that judge each step twice have half of the steps."""
    view = AdversarialLibraryView(verifier, task)
    from adv_lib import attacks as a

    def run(attack: Any, **parameters: Any) -> Callable[[], Run]:
        return counted(view, task, lambda: view.run(attack, **parameters))

    third, inf = {"third_class": True}, float("inf")
    searches = {
        "binary_search_steps": 3,
        "max_iterations": max(1, steps // 3),
        "initial_const": 1.0,
        "abort_early": False,
    }
    return {
        "l2": {
            "adv-lib FMN": run(a.fmn, norm=2, steps=steps),
            "adv-lib DDN": run(a.ddn, steps=steps),
            "adv-lib FAB": run(a.fab, norm=2, n_iter=steps // 2),
            "adv-lib ALMA": run(a.alma, distance="l2", num_steps=steps, init_lr_distance=1, **third),
            "adv-lib PDGD": run(a.pdgd, num_steps=steps),
            "adv-lib PDPGD": run(a.pdpgd, norm=2, num_steps=steps),
            "adv-lib Carlini-Wagner": run(a.carlini_wagner_l2, **searches),
        },
        "linf": {
            "adv-lib FMN": run(a.fmn, norm=inf, steps=steps),
            "adv-lib FAB": run(a.fab, norm=inf, n_iter=steps // 2),
            "adv-lib PDPGD": run(a.pdpgd, norm=inf, num_steps=steps),
        },
        "l1": {
            "adv-lib FMN": run(a.fmn, norm=1, steps=steps),
            "adv-lib FAB": run(a.fab, norm=1, n_iter=steps // 2),
            "adv-lib ALMA": run(a.alma, distance="l1", num_steps=steps, init_lr_distance=10, **third),
            "adv-lib PDPGD": run(a.pdpgd, norm=1, num_steps=steps),
        },
        "l0": {
            "adv-lib sigma-zero": run(a.sigma_zero, num_steps=steps),
            "adv-lib FMN": run(a.fmn, norm=0, steps=steps),
            "adv-lib PDPGD": run(a.pdpgd, norm=0, proximal_operator=23, num_steps=steps),
        },
    }


MAKERS = dict(zip(LIBRARIES, (ours, foolboxes, arts, adversarial_library), strict=True))


def norms(verifier: TensorFlowVerifier, task: Task, norm: Size, images: Images) -> NDArray[np.float64]:
    """The norms of successes; infinite for other pairs."""
    d = distances(task.decision.metric, verifier.embed(images), task.references)
    reached = is_same(task.decision, d) != task.dodging
    return np.where(reached, sizes(norm, images - task.probes), np.inf)


if __name__ == "__main__":
    main()
