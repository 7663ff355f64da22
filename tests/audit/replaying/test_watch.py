"""A watched model answers as before, and knows how far each pair came."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models import Linear
from toolkit.attacks.base import Task
from toolkit.audit.replaying.watch import Watched
from toolkit.verifiers.manifest import Decision

DECISION = Decision("euclidean", 0.1, 1.0)


def test_margins_are_those_of_each_pair_in_the_order_of_its_gradients() -> None:
    """Two pairs share a reference, and two share a probe."""
    probes = np.array([0.5, 0.8, 0.5], np.float32)[:, None, None, None] * np.ones((1, 4, 4, 3), np.float32)
    references = np.array([[0.4], [0.4], [0.2]], np.float32)
    generators = tuple(np.random.default_rng(i) for i in range(3))
    task = Task(probes, references, np.array([True, True, False]), DECISION, generators)
    linear: Any = Linear(np.full((48, 1), 1 / 48), DECISION)
    watched = Watched(linear, task)
    for rows, change in ((np.array([2, 1, 0]), 0.0), (np.array([0, 2]), 0.05), (np.array([0]), 0.02)):
        images = probes[rows] + np.float32(change)
        answer = watched.distances_and_gradients(images, references[rows])
        for mine, theirs in zip(answer, linear.distances_and_gradients(images, references[rows]), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(watched.embed(probes), linear.embed(probes))
    # The first pair starts at the threshold and goes 0.05 beyond; the last one is 0.2 short of it, and moves away.
    np.testing.assert_allclose([watched.margins[0][0], max(watched.margins[0])], [0.0, 0.05], atol=1e-6)
    np.testing.assert_allclose(
        [max(watched.margins[1]), watched.margins[2][0], max(watched.margins[2])], [0.3, -0.2, -0.2], atol=1e-6
    )


def test_a_pair_without_gradients_came_nowhere() -> None:
    probes = np.zeros((1, 4, 4, 3), np.float32)
    task = Task(probes, np.zeros((1, 1), np.float32), np.array([True]), DECISION, (np.random.default_rng(0),))
    linear: Any = Linear(np.full((48, 1), 1 / 48), DECISION)
    assert Watched(linear, task).margins == ((),)


def test_a_reference_that_is_no_pair_s_own_goes_to_the_nearest_probe() -> None:
    probes = np.array([0.2, 0.8], np.float32)[:, None, None, None] * np.ones((1, 4, 4, 3), np.float32)
    generators = tuple(np.random.default_rng(i) for i in range(2))
    task = Task(probes, np.array([[0.2], [0.8]], np.float32), np.array([True, True]), DECISION, generators)
    linear: Any = Linear(np.full((48, 1), 1 / 48), DECISION)
    watched = Watched(linear, task)
    watched.distances_and_gradients(probes[1:], np.array([[0.5]], np.float32))
    assert watched.margins[0] == ()
    np.testing.assert_allclose(watched.margins[1], [0.2], atol=1e-6)
