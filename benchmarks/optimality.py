"""How near our minimum-norm attacks come to the best of ours, Foolbox's and ART's, pair by pair, at equal steps.

python benchmarks/optimality.py facenet-mini --pairs LFW --folds 7,8 --limit 16 --profiles none,mean3

All attacks work on float images, on the same pairs and the same TensorFlow form of the verifier behind each profile.
ART attacks one pair at a time, because its attacks reorder batches, in which each pair has a reference of its own.
Printed are the successes, the median norm, and the optimality (AttackBench, arXiv:2404.19460) against the smallest norm
of each pair over all attacks, and the largest ratio of an attack's norm to that smallest norm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import tensorflow as tf
from art.attacks.evasion import CarliniL2Method, CarliniLInfMethod, NewtonFool
from art.attacks.evasion import DeepFool as DeepFoolArt
from art.estimators.classification import TensorFlowV2Classifier
from numpy.typing import NDArray
from rich.console import Console

from toolkit.attacks import fmn_linf
from toolkit.attacks.base import Attack, Task
from toolkit.attacks.carlini_wagner import CarliniWagner
from toolkit.attacks.ddn import Ddn
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.deepfool_linf import DeepFoolLinf
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.norms import Norm, sizes
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import Images, to_unit
from toolkit.profiles.profile import find_profile
from toolkit.statistics.optimality import envelope, optimality
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.scores import distances, is_same
from toolkit.verifiers.tensorflow import TensorFlowVerifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--profiles", default="none,mean3")
    args = parser.parse_args()
    manifest, console = find_manifest(args.verifier), Console(highlight=False, width=120)
    for name in args.profiles.split(","):
        profile = find_profile(name)
        verifier = TensorFlowVerifier(manifest, profile.tensorflow)
        task = right_pairs(manifest, verifier, args.pairs, [int(fold) for fold in args.folds.split(",")], args.limit)
        for norm, attacks in everything(verifier, task, args.steps).items():
            console.print(f"{manifest.name} behind {name}, {len(task)} pairs, {norm}, {args.steps} steps")
            found = {who: norms(verifier, task, norm, run()) for who, run in attacks.items()}
            best = envelope(list(found.values()))
            for who, needed in found.items():
                got = np.isfinite(needed)
                value, ratio = optimality(needed, best), np.max(needed / best)
                median = f"{np.median(needed[got]):.4f}" if got.any() else "-"
                console.print(
                    f"  {who:24} {int(got.sum()):2}/{len(task)}   median {median}   "
                    f"optimality {value if value is None else round(value, 3)}   largest ratio {ratio:.2f}"
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


def everything(verifier: TensorFlowVerifier, task: Task, steps: int) -> dict[Norm, dict[str, Callable[[], Images]]]:
    """Every attack by the norm that it minimizes."""
    model, labels = foolbox_model(verifier, task), tf.constant(np.where(task.dodging, 0, 1))

    def ours(attack: Attack) -> Callable[[], Images]:
        return lambda: attack.craft(verifier, task).probes

    def theirs(attack: Any) -> Callable[[], Images]:
        return lambda: np.asarray(attack.run(model, tf.constant(task.probes), labels))

    # Three searches share the steps.
    each = max(1, steps // 3)
    f, art = foolbox.attacks, OnePair(verifier, task)
    few = {"batch_size": 1, "verbose": False}
    return {
        "l2": {
            "fmn": ours(Fmn(steps=steps)),
            "ddn": ours(Ddn(steps=steps)),
            "deepfool": ours(DeepFool(steps)),
            "carlini-wagner": ours(CarliniWagner(3, each)),
            "Foolbox FMN": theirs(f.L2FMNAttack(steps=steps)),
            "Foolbox DDN": theirs(f.DDNAttack(steps=steps)),
            "Foolbox DeepFool": theirs(f.L2DeepFoolAttack(steps=steps, candidates=2)),
            "Foolbox Carlini-Wagner": theirs(f.L2CarliniWagnerAttack(3, each, initial_const=1.0)),
            "ART DeepFool": art.runs(DeepFoolArt, max_iter=steps, epsilon=0.02, nb_grads=2, **few),
            "ART NewtonFool": art.runs(NewtonFool, max_iter=steps, **few),
            "ART Carlini-Wagner": art.runs(
                CarliniL2Method, binary_search_steps=3, max_iter=each, initial_const=1.0, **few
            ),
        },
        "linf": {
            "fmn-linf": ours(replace(fmn_linf.ATTACK, steps=steps)),
            "deepfool-linf": ours(DeepFoolLinf(steps)),
            "Foolbox FMN": theirs(f.LInfFMNAttack(steps=steps)),
            "Foolbox DeepFool": theirs(f.LinfDeepFoolAttack(steps=steps, candidates=2)),
            "ART Carlini-Wagner": art.runs(CarliniLInfMethod, max_iter=each, initial_const=1.0, **few),
        },
    }


def logits(verifier: TensorFlowVerifier, task: Task, crops: Any, references: Any) -> Any:
    """The decision as the logits (N, 2) of "same" and "different"."""
    if task.decision.metric == "cosine":
        raise SystemExit("only Euclidean distances are compared here")
    limit = task.decision.threshold ** (2 if task.decision.metric == "euclidean" else 1)
    entropy = tf.zeros((tf.shape(crops)[0],), tf.int64)
    embedded = verifier._embed(crops, entropy)[0]  # noqa: SLF001 - what the libraries must see has no other name
    margin = limit - tf.reduce_sum(tf.square(embedded - references), axis=-1)
    return tf.stack([margin, -margin], axis=-1) / 2


def foolbox_model(verifier: TensorFlowVerifier, task: Task) -> Any:
    """A classifier of the whole batch."""
    references = tf.constant(task.references)
    model = tf.function(lambda crops: logits(verifier, task, crops, references))
    return foolbox.TensorFlowModel(model, bounds=(0, 1), device="/CPU:0")


class OnePair:
    """ART's view of the verifier: a classifier of crops into the two decisions about one reference at a time."""

    def __init__(self, verifier: TensorFlowVerifier, task: Task) -> None:
        self._task = task
        self._reference = tf.Variable(task.references[:1])
        compiled = tf.function(lambda crops: logits(verifier, task, crops, self._reference), reduce_retracing=True)
        self._model = TensorFlowV2Classifier(
            lambda crops, training=False: compiled(tf.cast(crops, tf.float32)),  # noqa: ARG005 - ART gives it
            nb_classes=2,
            input_shape=task.probes.shape[1:],
            loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            clip_values=(0, 1),
        )

    def runs(self, attack: Any, **parameters: Any) -> Callable[[], Images]:
        """A function that attacks every pair with one of ART's attacks."""

        def run() -> Images:
            found = []
            for probe, reference, dodging in zip(
                self._task.probes, self._task.references, self._task.dodging, strict=True
            ):
                self._reference.assign(reference[None])
                label = np.array([0 if dodging else 1])
                found.append(attack(self._model, **parameters).generate(probe[None], label))
            return np.concatenate(found).astype(np.float32)

        return run


def norms(verifier: TensorFlowVerifier, task: Task, norm: Norm, images: Images) -> NDArray[np.float64]:
    """The norms of successes; infinite for other pairs."""
    d = distances(task.decision.metric, verifier.embed(images), task.references)
    reached = is_same(task.decision, d) != task.dodging
    return np.where(reached, sizes(norm, images - task.probes), np.inf)


if __name__ == "__main__":
    main()
