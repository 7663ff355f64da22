"""What the tests of single attacks share: closed forms on the linear verifier, and a verifier that counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tests.attacks.test_attacks import distance_to_boundary, linear_task
from tests.models import Linear
from toolkit.attacks.base import Attack, Crafted, Task
from toolkit.attacks.norms import Convex, Size, sizes
from toolkit.pixels import to_unit


@dataclass(frozen=True)
class Counting(Linear):
    """A linear verifier that counts the images it is given."""

    images: list[int] = field(default_factory=list)

    def embed(self, crops):  # type: ignore[no-untyped-def]
        self.images.append(len(crops))
        return super().embed(crops)

    def distances_and_gradients(self, crops, references):  # type: ignore[no-untyped-def]
        self.images.append(len(crops))
        return super().distances_and_gradients(crops, references)


def smallest(model: Linear, task: Task, norm: Convex) -> np.ndarray:
    """The closed-form norm of the smallest perturbation: the margin over the weights' dual norm."""
    return distance_to_boundary(task) / np.linalg.norm(model.weights, {"l2": 2, "linf": 1, "l1": np.inf}[norm], axis=0)


def fewest(model: Linear, task: Task) -> np.ndarray:
    """The closed-form number of pixels: those that give most, each moved to the ends of its range."""
    weights = model.weights[:, 0].reshape(task.probes.shape[1:])
    # The embedding lies below that of the reference, so that whoever dodges lowers it.
    toward = np.where(task.dodging, -1, 1)[:, None, None, None] * weights
    gains = np.maximum(toward * (1 - task.probes), -toward * task.probes).sum(axis=3).reshape(len(task), -1)
    most = np.cumsum(-np.sort(-gains, axis=1), axis=1)
    return 1 + (most < distance_to_boundary(task)[:, None]).sum(axis=1)


def faint(share: float) -> tuple[Linear, Task]:
    """The linear verifier and its task with weights of a share of their size, so that one pixel is not enough."""
    model, task = linear_task()
    fainter = Linear(share * model.weights, model.decision)
    apart = np.where(task.dodging, 0.25, 2.0)[:, None]
    return fainter, replace(task, references=(fainter.embed(task.probes) + apart).astype(np.float32))


def found(task: Task, crafted: Crafted, norm: Size) -> np.ndarray:
    return sizes(norm, crafted.probes - task.probes)


def part(task: Task, rows: Sequence[int]) -> Task:
    """Some pairs of a task, their generators as new."""
    generators = tuple(np.random.default_rng([5, i]) for i in rows)
    start = None if task.start is None else task.start[list(rows)]
    return Task(task.probes[rows], task.references[rows], task.dodging[rows], task.decision, generators, start)


def check_batches(attack: Attack, *, started: bool = False) -> None:
    """The same results in batches of 16, of 3 and of 1."""
    model, task = linear_task(16, wide=True)
    if started:
        task = with_start(model, task)
    whole = attack.craft(model, part(task, range(16)))
    for rows in ([3], [9], [14, 2, 5], [0, 1, 15]):
        crafted = attack.craft(model, part(task, rows))
        np.testing.assert_array_equal(crafted.probes8, whole.probes8[rows])
        np.testing.assert_array_equal(crafted.success, whole.success[rows])
        np.testing.assert_array_equal(crafted.success8, whole.success8[rows])
        np.testing.assert_array_equal(crafted.evaluations, whole.evaluations[rows])
        np.testing.assert_allclose(crafted.probes, whole.probes[rows], atol=1e-6)


def check_count(attack: Attack, budget: int | None = None, *, started: bool = False) -> None:
    """What an attack says of its model runs is what the model saw, and within its budget, if it has one."""
    linear, task = linear_task(6, wide=True)
    if started:
        task = with_start(linear, task)
    model = Counting(linear.weights, linear.decision)
    crafted = attack.craft(model, task)
    assert crafted.evaluations.sum() == sum(model.images)
    if budget is not None:
        assert crafted.evaluations.max() <= budget


def check_probes(attack: Attack, model: Linear, task: Task) -> Crafted:
    """Probes are images, successes are such, and failures are clean; returns what was crafted."""
    crafted = attack.craft(model, task)
    for probes, success in ((crafted.probes, crafted.success), (to_unit(crafted.probes8), crafted.success8)):
        assert probes.min() >= 0
        assert probes.max() <= 1
        np.testing.assert_array_equal(probes[~success], task.probes[~success])
        d = np.linalg.norm(model.embed(probes) - task.references, axis=1)
        assert np.where(task.dodging, d >= 1, d < 1)[success].all()
    return crafted


def with_start(model: Linear, task: Task) -> Task:
    """The task with an image at the reference's own embedding, as a photograph of the same face has."""
    change = (task.references - model.embed(task.probes)) @ np.linalg.pinv(model.weights)
    start = np.clip(task.probes + change.reshape(task.probes.shape), 0, 1).astype(np.float32)
    return Task(task.probes, task.references, task.dodging, task.decision, task.generators, start)


def bordering(task: Task) -> Task:
    """The task with probes of black and white, so that half of every change is clipped."""
    probes = (task.probes > 0.5).astype(np.float32)
    return Task(probes, task.references, task.dodging, task.decision, task.generators)
