"""Attacks on a linear embedding, where the smallest perturbation is a formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.models import Linear
from toolkit.attacks.base import Attack, Task
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.ladder import carry_to_8bit
from toolkit.attacks.uniform import Uniform
from toolkit.errors import InputError
from toolkit.pixels import to_8bit, to_unit
from toolkit.registry import discover
from toolkit.verifiers.manifest import Decision

SIDE = 12


# Where eyes, nose and mouth are on a probe of `linear_task`.
FACE = np.array([[3.5, 4.0], [8.5, 4.0], [6.0, 6.5], [4.0, 9.0], [8.0, 9.0]])


def linear_task(n: int = 6, *, wide: bool = False) -> tuple[Linear, Task]:
    """Pairs of a one-dimensional linear verifier: half dodge from 0.25, half impersonate from 2.

    Probes stay near the middle of the range, so that clipping plays no part.
    """
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(SIDE * SIDE * 3, 3 if wide else 1))
    decision = Decision("euclidean", 1.0, 4.0)
    model = Linear(weights, decision)
    probes = to_unit(rng.integers(100, 156, (n, SIDE, SIDE, 3)).astype(np.uint8))
    dodging = np.arange(n) % 2 == 0
    start = np.where(dodging, 0.25, 2.0)[:, None]
    references = model.embed(probes) + (start * np.eye(weights.shape[1])[0]).astype(np.float32)
    generators = tuple(np.random.default_rng([5, i]) for i in range(n))
    return model, Task(probes, references, dodging, decision, generators)


def equipped(task: Task) -> Task:
    """With what single attacks ask for besides: a face, and something learned."""
    learned = np.random.default_rng(2).choice([-0.06, 0.06], task.probes.shape[1:]).astype(np.float32)
    return replace(task, landmarks=FACE, universal=np.broadcast_to(learned, task.probes.shape))


def distance_to_boundary(task: Task) -> np.ndarray:
    return np.where(task.dodging, 0.75, 1.0)


def test_deepfool_finds_the_closed_form_minimum() -> None:
    model, task = linear_task()
    crafted = DeepFool().craft(model, task)
    assert crafted.success.all()
    norms = np.linalg.norm((crafted.probes - task.probes).reshape(len(task), -1), axis=1)
    smallest = distance_to_boundary(task) / np.linalg.norm(model.weights)
    # One exact step, stretched by the overshoot and by the 1e-4 that takes it across.
    np.testing.assert_allclose(norms, 1.02 * (smallest + 1e-4), rtol=1e-3)
    assert (crafted.evaluations >= 2).all()


def test_fgsm_finds_the_smallest_rung_that_succeeds() -> None:
    model, task = linear_task()
    attack = Fgsm(smallest=1e-5, largest=0.1)
    crafted = attack.craft(model, task)
    assert crafted.success.all()
    epsilon = np.abs(crafted.probes - task.probes).max(axis=(1, 2, 3))
    exact = distance_to_boundary(task) / np.abs(model.weights).sum()
    step = (attack.largest / attack.smallest) ** (1 / (attack.levels - 1))
    assert (epsilon >= exact * 0.999).all()
    assert (epsilon <= exact * step * 1.001).all()


@pytest.mark.parametrize("attack", [Gaussian(levels=40, largest=2.0), Uniform(levels=40, largest=2.0)])
def test_noise_rises_until_the_decision_flips(attack: Gaussian | Uniform) -> None:
    model, task = linear_task()
    crafted = attack.craft(model, task)
    # Along one dimension noise of deviation s moves the embedding by s * |w|: enough of it always dodges.
    assert crafted.success8[task.dodging].all()
    moved = np.abs(model.embed(to_unit(crafted.probes8)) - task.references)[:, 0]
    assert (moved[crafted.success8 & task.dodging] >= 1).all()
    assert (moved[crafted.success8 & ~task.dodging] < 1).all()
    clean = np.abs(to_unit(crafted.probes8) - task.probes).max(axis=(1, 2, 3))
    assert (clean[~crafted.success8] == 0).all()


def test_noise_has_the_deviation_that_it_states() -> None:
    rng = np.random.default_rng(0)
    from toolkit.attacks.gaussian import _standard_normal
    from toolkit.attacks.uniform import _unit_uniform

    for draw in (_standard_normal, _unit_uniform):
        assert draw(rng, (400, 400)).std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("attack", discover("attack").values(), ids=lambda a: a.name)
def test_a_result_does_not_depend_on_the_batch(attack: Attack) -> None:
    model, task = linear_task(6, wide=True)
    whole = attack.craft(model, equipped(linear_task(6, wide=True)[1]))
    for rows in ([0], [1, 2], [5, 3, 0]):
        part = attack.craft(
            model,
            equipped(
                Task(
                    task.probes[rows],
                    task.references[rows],
                    task.dodging[rows],
                    task.decision,
                    tuple(np.random.default_rng([5, i]) for i in rows),
                )
            ),
        )
        np.testing.assert_array_equal(part.probes8, whole.probes8[rows])
        np.testing.assert_array_equal(part.success8, whole.success8[rows])
        np.testing.assert_allclose(part.probes, whole.probes[rows], atol=1e-6)


@pytest.mark.parametrize("attack", discover("attack").values(), ids=lambda a: a.name)
def test_success_is_what_the_model_says_of_the_probe(attack: Attack) -> None:
    model, task = linear_task(6, wide=True)
    crafted = attack.craft(model, equipped(task))
    for probes, success in ((crafted.probes, crafted.success), (to_unit(crafted.probes8), crafted.success8)):
        d = np.linalg.norm(model.embed(probes) - task.references, axis=1)
        reached = np.where(task.dodging, d >= 1, d < 1)
        np.testing.assert_array_equal(reached[success], True)
        assert probes.min() >= 0
        assert probes.max() <= 1


def test_8bit_probe_succeeds_though_rounding_alone_would_undo_it() -> None:
    model, task = linear_task()
    crafted = DeepFool().craft(model, task)
    rounded = to_unit(to_8bit(crafted.probes))
    d = np.abs(model.embed(rounded) - task.references)[:, 0]
    undone = ~np.where(task.dodging, d >= 1, d < 1)
    assert undone.any(), "the example must be one in which rounding matters"
    probes8, success8, _ = carry_to_8bit(model, task, crafted.probes, crafted.success)
    assert success8.all()
    assert (probes8 != to_8bit(task.probes)).any(axis=(1, 2, 3)).all()


def test_a_gradient_that_is_zero_fails_and_one_that_is_nan_is_refused() -> None:
    model, task = linear_task()

    class Masked(Linear):
        fill = 0.0

        def distances_and_gradients(self, crops, references):  # type: ignore[no-untyped-def]
            d, g = super().distances_and_gradients(crops, references)
            return d, np.full_like(g, self.fill)

    masked = Masked(model.weights, model.decision)
    for attack in (DeepFool(), Fgsm()):
        assert not attack.craft(masked, task).success.any()
    Masked.fill = float("nan")
    for attack in (DeepFool(), Fgsm()):
        with pytest.raises(InputError, match="NaN"):
            attack.craft(masked, task)


def test_the_registry_finds_every_attack_of_the_paper() -> None:
    assert {"uniform", "gaussian", "fgsm", "deepfool"} <= set(discover("attack"))
