"""The attacks on facenet-mini with real pairs: beside Foolbox, and through the mean filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import record

from toolkit.attacks import fmn_l1, fmn_linf, sigma_zero
from toolkit.attacks.apgd import Apgd
from toolkit.attacks.base import Task
from toolkit.attacks.carlini_wagner import CarliniWagner
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.hop_skip_jump import HopSkipJump
from toolkit.attacks.norms import Size, sizes
from toolkit.attacks.pgd import Pgd
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import Bools, to_unit
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.scores import distances, is_same
from toolkit.verifiers.tensorflow import TensorFlowVerifier

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def task(shared: Path, facenet_mini: TensorFlowVerifier) -> Task:
    """About 5 genuine and 5 impostor pairs that the clean model decides correctly."""
    manifest = facenet_mini.manifest
    assert manifest.alignment is not None
    pairs = load_pairs(shared / "lfw", limit=10, folds=[7, 8])
    crops = crop_pairs(pairs, manifest.input.width, manifest.input.height, manifest.alignment.template)
    probes, references = (to_unit(crops.images[crops.index[:, k]]) for k in (0, 1))
    embedded, genuine = facenet_mini.embed(references), np.array([p.genuine for p in crops.pairs])
    d = distances(manifest.decision.metric, facenet_mini.embed(probes), embedded)
    kept = np.flatnonzero(is_same(manifest.decision, d) == genuine)
    assert len(kept) >= 8
    generators = tuple(np.random.default_rng(i) for i in kept)
    return Task(probes[kept], embedded[kept], genuine[kept], manifest.decision, generators)


def foolbox_model(verifier: TensorFlowVerifier, task: Task) -> Any:
    """The verifier as Foolbox wants it: a two-class model whose logits are P(same) and P(different).

    It has our compiled gradient: whether that is right is asked below, and Foolbox would compile another one, with
    gradients of all weights.
    """
    t, largest = task.decision.threshold, task.decision.maximum
    references, compiled = tf.constant(task.references), verifier._gradient
    # It is traced at its first call, which must not be one that records nothing.
    verifier.distances_and_gradients(task.probes[:1], task.references[:1])

    @lru_cache(maxsize=1)
    def seen(content: bytes) -> tuple[Any, Any]:
        """Some of the attacks ask for the gradient of every class, and they differ in sign alone."""
        crops = np.frombuffer(content, np.float32).reshape(-1, *task.probes.shape[1:])
        with record.stop_recording():
            return tuple(compiled(tf.constant(crops), references, tf.zeros(len(crops), tf.int64)))

    def logits(crops: Any) -> Any:
        found, slope = seen(crops.numpy().tobytes())
        d = tf.custom_gradient(lambda _: (found, lambda upstream: upstream[:, None, None, None] * slope))(crops)
        same = tf.where(d < t, 1 - 0.5 * d / t, 0.5 - 0.5 * (d - t) / (largest - t))
        return tf.stack([same, 1 - same], axis=-1)

    return foolbox.TensorFlowModel(logits, bounds=(0, 1))


def some(task: Task, rows: list[int]) -> Task:
    """A few pairs, their generators as new."""
    generators = tuple(np.random.default_rng(i) for i in rows)
    return Task(task.probes[rows], task.references[rows], task.dodging[rows], task.decision, generators)


def norms(task: Task, probes: np.ndarray) -> np.ndarray:
    return np.linalg.norm((probes - task.probes).reshape(len(task), -1), axis=1)


def labels(task: Task) -> tf.Tensor:
    return tf.constant(np.where(task.dodging, 0, 1))


def agree(ours: Bools, theirs: Bools, our_norms: np.ndarray, their_norms: np.ndarray) -> None:
    np.testing.assert_array_equal(ours, theirs)
    assert ours.any()
    assert np.median(our_norms[ours]) == pytest.approx(np.median(their_norms[ours]), rel=0.02)


def test_deepfool_agrees_with_foolbox(facenet_mini: TensorFlowVerifier, task: Task) -> None:
    attack = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=2, overshoot=0.02, loss="logits")
    raw, _, success = attack(foolbox_model(facenet_mini, task), tf.constant(task.probes), labels(task), epsilons=None)
    crafted = DeepFool().craft(facenet_mini, task)
    agree(crafted.success, success.numpy(), norms(task, crafted.probes), norms(task, raw.numpy()))


def test_fgsm_agrees_with_foolbox(facenet_mini: TensorFlowVerifier, task: Task) -> None:
    attack = Fgsm(levels=24)
    epsilons = [float(e) for e in np.geomspace(attack.smallest, attack.largest, attack.levels)]
    model = foolbox_model(facenet_mini, task)
    clipped, success = [], []
    for epsilon in epsilons:  # one list of epsilons would hold all their results in memory at once
        _, probes, hit = foolbox.attacks.FGSM()(model, tf.constant(task.probes), labels(task), epsilons=epsilon)
        clipped.append(probes.numpy())
        success.append(hit.numpy())
    first = np.argmax(success, axis=0)
    theirs = np.stack([clipped[rung][row] for row, rung in enumerate(first)])
    crafted = attack.craft(facenet_mini, task)
    agree(crafted.success, np.any(success, axis=0), norms(task, crafted.probes), norms(task, theirs))


def both_goals(task: Task, each: int) -> Task:
    """The first few pairs of each goal."""
    return some(task, [*np.flatnonzero(task.dodging)[:each], *np.flatnonzero(~task.dodging)[:each]])


def test_carlini_wagner_is_at_least_as_near_as_foolbox(facenet_mini: TensorFlowVerifier, task: Task) -> None:
    few = both_goals(task, 1)
    # One as the first c suits Foolbox: with its default of 0.001 three searches do not reach the boundary.
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=3, steps=50, initial_const=1.0)
    raw, _, success = attack(foolbox_model(facenet_mini, few), tf.constant(few.probes), labels(few), epsilons=None)
    crafted = CarliniWagner().craft(facenet_mini, few)
    assert crafted.success[success.numpy()].all()
    assert crafted.success8.all()
    ours, theirs = norms(few, crafted.probes), norms(few, raw.numpy())
    assert np.median(ours) <= 1.02 * np.median(theirs)
    # It is also to be near what fifty steps of another attack find.
    assert np.median(ours) <= 1.1 * np.median(norms(few, Fmn(steps=50).craft(facenet_mini, few).probes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "theirs", "size"),
    [
        (fmn_linf.ATTACK, foolbox.attacks.LInfFMNAttack, "linf"),
        (fmn_l1.ATTACK, foolbox.attacks.L1FMNAttack, "l1"),
        # Foolbox counts values and not pixels, and each of its values is in some pixel.
        (sigma_zero.ATTACK, foolbox.attacks.L0FMNAttack, "l0"),
    ],
    ids=lambda part: getattr(part, "name", None),
)
def test_attacks_in_other_norms_are_at_least_as_near_as_foolbox(
    facenet_mini: TensorFlowVerifier, task: Task, attack: Any, theirs: Any, size: Size
) -> None:
    few = both_goals(task, 1)
    raw, _, success = theirs(steps=50)(
        foolbox_model(facenet_mini, few), tf.constant(few.probes), labels(few), epsilons=None
    )
    crafted = replace(attack, steps=50).craft(facenet_mini, few)
    assert crafted.success8.all()
    ours, others = (sizes(size, np.asarray(probes) - few.probes) for probes in (crafted.probes, raw))
    assert (ours <= 1.03 * others)[success.numpy()].all()


def test_pgd_succeeds_where_foolbox_does(facenet_mini: TensorFlowVerifier, task: Task) -> None:
    few = both_goals(task, 3)
    for epsilon in (0.5 / 255, 8 / 255):
        attack = foolbox.attacks.LinfPGD(rel_stepsize=1 / 4, steps=10)
        _, _, success = attack(foolbox_model(facenet_mini, few), tf.constant(few.probes), labels(few), epsilons=epsilon)
        crafted = Pgd(epsilon=epsilon, step=epsilon / 4, steps=10).craft(facenet_mini, few)
        np.testing.assert_array_equal(crafted.success, success.numpy())


def test_hop_skip_jump_comes_nearer_by_decisions_alone(facenet_mini: TensorFlowVerifier, task: Task) -> None:
    few = some(task, [int(np.flatnonzero(task.dodging)[0])])
    early, late = (HopSkipJump(budget=budget).craft(facenet_mini, few) for budget in (120, 500))
    assert late.success.all()
    assert late.success8.all()
    assert (norms(few, late.probes) < 0.8 * norms(few, early.probes)).all()


def test_deepfool_goes_through_the_mean_filter(
    facenet_network: Callable[[Any], Any], facenet_mini: TensorFlowVerifier, task: Task
) -> None:
    mean3 = find_profile("mean3")
    hardened = TensorFlowVerifier(facenet_mini.manifest, mean3.tensorflow, facenet_network)
    crafted = DeepFool().craft(hardened, task)
    bare = DeepFool().craft(facenet_mini, task)
    assert crafted.success8.mean() >= 0.9
    assert bare.success8.mean() >= 0.9
    # Through a low-pass filter the same change of the embedding takes a larger one of the probe.
    assert np.median(norms(task, crafted.probes)) > np.median(norms(task, bare.probes))
    # What was crafted without knowing the filter mostly does not survive it (paper, table 2).
    d = distances(task.decision.metric, hardened.embed(to_unit(bare.probes8)), task.references)
    survived = np.where(task.dodging, d >= task.decision.threshold, d < task.decision.threshold)
    assert survived.mean() < bare.success8.mean()


def test_the_compiled_gradient_is_the_slope_of_the_distance(facenet_mini: TensorFlowVerifier, task: Task) -> None:
    d, gradient = facenet_mini.distances_and_gradients(task.probes[:4], task.references[:4])
    expected = distances(task.decision.metric, facenet_mini.embed(task.probes[:4]), task.references[:4])
    np.testing.assert_allclose(d, expected, rtol=1e-3, atol=1e-5)
    step = 1e-3 * gradient / np.linalg.norm(gradient.reshape(4, -1), axis=1)[:, None, None, None]
    ahead, _ = facenet_mini.distances_and_gradients(task.probes[:4] + step, task.references[:4])
    behind, _ = facenet_mini.distances_and_gradients(task.probes[:4] - step, task.references[:4])
    slope = (ahead - behind) / 2e-3
    np.testing.assert_allclose(slope, np.linalg.norm(gradient.reshape(4, -1), axis=1), rtol=0.05)


@pytest.mark.parametrize("attack", [Apgd(epsilon=2.15 / 255), Pgd(epsilon=2.15 / 255, step=0.5 / 255)])
def test_an_attack_in_a_small_ball_goes_on_until_a_success_survives_rounding(
    facenet_mini: TensorFlowVerifier, task: Task, attack: Apgd | Pgd
) -> None:
    """Two levels of 8 bits are nearly all of this ball, so that rounding undoes many a success on its surface."""
    crafted = attack.craft(facenet_mini, some(task, list(range(len(task)))))
    assert crafted.success.all()
    assert crafted.success8.all()
