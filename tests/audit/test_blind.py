"""Who cannot get past verifier and detector together tries the verifier alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.models import Linear
from toolkit.attacks.base import Crafted, Needs, Task, Traits
from toolkit.audit.crafting.blind import with_blind_tries
from toolkit.pixels import to_8bit, to_unit
from toolkit.verifiers.manifest import Decision

BRIGHTNESS = Decision("euclidean", 0.1, 1.0)
IDS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Brightening:
    """Solves the first pair with a detector in view; without one, it makes every probe `levels` levels brighter."""

    levels: int
    needs: Needs = "gradient"
    name: str = "brightening"
    seen: list[Task] = field(default_factory=list, compare=False)

    @property
    def traits(self) -> Traits:
        return Traits()

    def craft(self, model: Any, task: Task) -> Crafted:
        self.seen.append(task)
        falls = np.arange(len(task)) < 1 if np.isfinite(task.alarm) else np.ones(len(task), np.bool_)
        probes8 = to_8bit(task.probes) + (self.levels * falls).astype(np.uint8)[:, None, None, None]
        return Crafted(to_unit(probes8), falls, probes8, falls, np.full(len(task), 3))


@pytest.fixture
def model() -> Any:
    """Sees the brightness. Its detector flags what is brighter than 200."""
    linear = Linear(np.full((48, 1), 1 / 48), BRIGHTNESS)

    def embed_and_score(images: np.ndarray) -> Any:
        return linear.embed(images), (images.mean(axis=(1, 2, 3)) > 200 / 255).astype(np.float32)

    return SimpleNamespace(embed=linear.embed, embed_and_score=embed_and_score, compare=linear.compare)


def task_of(alarm: float) -> Task:
    """Dodging from a reference of the probe's own brightness; the last probe ends above 200."""
    shades = np.array([100, 120, 140, 190], np.uint8)
    probes = to_unit(np.broadcast_to(shades[:, None, None, None], (4, 4, 4, 3)))
    references = probes.mean(axis=(1, 2, 3))[:, None]
    generators = tuple(np.random.default_rng(i) for i in range(4))
    return Task(probes, references, np.ones(4, np.bool_), BRIGHTNESS, generators, alarm=alarm)


def test_a_probe_counts_if_it_passes_the_detector_too(model: Any) -> None:
    attack, task = Brightening(levels=40), task_of(alarm=0.5)
    first = attack.craft(model, task)
    crafted = with_blind_tries(first, attack, model, task, IDS, 0)
    assert crafted.success8.tolist() == crafted.success.tolist() == [True, True, True, False]
    assert crafted.probes8[:, 0, 0, 0].tolist() == [140, 160, 180, 190], "what is flagged stays as it was"
    np.testing.assert_array_equal(crafted.probes, to_unit(crafted.probes8))
    # Nobody tries again what fell, and the two looks at each new probe count.
    assert crafted.evaluations.tolist() == [3, 8, 8, 8]
    _, blind = attack.seen
    assert np.isinf(blind.alarm)
    assert (255 * blind.references[:, 0]).round().tolist() == [120, 140, 190]


def test_a_probe_that_flips_nothing_does_not_count(model: Any) -> None:
    attack, task = Brightening(levels=10), task_of(alarm=0.5)
    first = attack.craft(model, task)
    crafted = with_blind_tries(first, attack, model, task, IDS, 0)
    assert crafted.success8.tolist() == first.success8.tolist()
    np.testing.assert_array_equal(crafted.probes8, first.probes8)


@pytest.mark.parametrize("needs", ["gradient", "runtime"])
def test_nothing_is_tried_again_without_a_detector_or_without_gradients(model: Any, needs: Needs) -> None:
    attack = Brightening(levels=40, needs=needs)
    task = task_of(alarm=np.inf if needs == "gradient" else 0.5)
    first = replace(attack.craft(model, task), success8=np.zeros(4, np.bool_))
    assert with_blind_tries(first, attack, model, task, IDS, 0) is first
    assert len(attack.seen) == 1


def test_random_numbers_are_a_pair_s_own_and_new(model: Any) -> None:
    drawn = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        attack, task = Brightening(levels=40), task_of(alarm=0.5)
        nothing = replace(attack.craft(model, task), success8=np.zeros(4, np.bool_))
        with_blind_tries(nothing, attack, model, task, [IDS[i] for i in order], 0)
        drawn.append({IDS[i]: g.random() for i, g in zip(order, attack.seen[-1].generators, strict=True)})
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0].values())) == 4
