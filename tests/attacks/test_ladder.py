"""Ladders: the smallest strength that succeeds, found with few images, and the way from a float probe to 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import Linear
from toolkit.attacks.base import Task
from toolkit.attacks.ladder import carry_to_8bit, finish, first_success, smallest_success
from toolkit.attacks.norms import Ball, sizes
from toolkit.pixels import to_unit
from toolkit.verifiers.manifest import Decision

SIDE = 4
VALUES = SIDE * SIDE * 3
RUNGS = 40
# The embedding is the mean of the pixels; pairs are the same below a distance of 0.1.
MODEL = Linear(np.full((VALUES, 1), 1 / VALUES), Decision("euclidean", 0.1, 1.0))


def task(levels: list[int], dodging: bool = True) -> Task:
    """Gray probes, and references of the same gray, or 0.3 darker for impersonation."""
    probes = np.stack([np.full((SIDE, SIDE, 3), level / 255, np.float32) for level in levels])
    references = MODEL.embed(probes) - np.float32(0 if dodging else 0.3)
    generators = tuple(np.random.default_rng(i) for i in range(len(levels)))
    return Task(probes, references, np.full(len(levels), dodging), MODEL.decision, generators)


def script(pairs: Task, succeeds: np.ndarray):  # type: ignore[no-untyped-def]
    """Candidates that dodge at the rungs (pairs, RUNGS) that are true, and the list of all that were tried."""
    tried: list[tuple[int, int]] = []

    def make(rows: np.ndarray, rungs: np.ndarray) -> np.ndarray:
        tried.extend(zip(rows.tolist(), rungs.tolist(), strict=True))
        size = np.where(succeeds[rows, rungs], 0.2, 0.05 + 0.0001 * rungs)
        return (pairs.probes[rows] + size[:, None, None, None]).astype(np.float32)

    return make, tried


@given(
    first=st.lists(st.integers(0, RUNGS), min_size=1, max_size=4), stride=st.integers(1, 9), at_once=st.integers(1, 7)
)
def test_the_smallest_rung_is_that_of_trying_all(first: list[int], stride: int, at_once: int) -> None:
    pairs = task([100] * len(first))
    make, tried = script(pairs, np.arange(RUNGS) >= np.array(first)[:, None])
    rungs, runs = smallest_success(MODEL, pairs, np.arange(len(first)), RUNGS, stride, make, at_once)
    np.testing.assert_array_equal(rungs, [rung if rung < RUNGS else -1 for rung in first])
    # Every image is counted for its own pair, and none is run twice.
    np.testing.assert_array_equal(runs, np.bincount([row for row, _ in tried], minlength=len(first)))
    assert len(set(tried)) == len(tried)


def test_a_success_between_the_coarse_rungs_is_found_near_the_nearest_one() -> None:
    pairs = task([100])
    succeeds = np.zeros((1, RUNGS), np.bool_)
    succeeds[0, RUNGS - 3] = True  # the last coarse rung is the nearest to the goal
    make, _ = script(pairs, succeeds)
    rungs, _ = smallest_success(MODEL, pairs, np.array([0]), RUNGS, 6, make)
    assert rungs.tolist() == [RUNGS - 3]


def test_the_first_rung_of_each_ladder_wins_and_solved_pairs_leave() -> None:
    pairs = task([100, 100, 100])
    succeeds = np.zeros((3, RUNGS), np.bool_)
    succeeds[0, [7, 9]] = succeeds[1, 20] = True
    make, tried = script(pairs, succeeds)
    ladders = np.array([[3, 9, 7, 5], [3, 20, -1, 21], [1, 2, 4, 3]])
    climb = first_success(MODEL, pairs, np.arange(3), ladders, 2, make)
    assert climb.rung.tolist() == [9, 20, -1], "in the order of the ladder, not of the rungs"
    assert climb.nearest.tolist() == [9, 20, 4]
    assert climb.runs.tolist() == [2, 2, 4]
    assert (1, -1) not in tried


def test_batches_grow_from_the_first() -> None:
    sizes_of_batches = []
    pairs = task([100])

    def make(rows: np.ndarray, rungs: np.ndarray) -> np.ndarray:
        sizes_of_batches.append(len(rows))
        return pairs.probes[rows]

    first_success(MODEL, pairs, np.array([0]), np.arange(12)[None], 4, make, first=1)
    assert sizes_of_batches == [1, 2, 4, 4, 1]


@pytest.mark.parametrize("dodging", [True, False])
def test_a_float_success_is_scaled_until_its_rounded_form_succeeds(dodging: bool) -> None:
    pairs = task([100, 100], dodging)
    needed = 0.1 if dodging else -0.2
    probes = pairs.probes + np.float32(needed * 1.001)
    found, success, runs = carry_to_8bit(MODEL, pairs, probes, np.array([True, False]))
    assert success.tolist() == [True, False]
    np.testing.assert_array_equal(found[1], 100)  # a failure is the clean probe
    assert runs[0] > 0
    assert runs[1] == 0
    moved = (to_unit(found[0]) - pairs.probes[0]).mean()
    # Scales are 5 % apart, and the result has whole levels.
    assert abs(needed) <= abs(moved) <= 1.05 * 1.001 * abs(needed) + 1 / 255


def test_what_is_bound_to_a_ball_stays_in_it() -> None:
    pairs = task([100, 100])
    ball = Ball("linf", 30 / 255)
    probes = pairs.probes + np.float32(27 / 255)
    crafted = finish(MODEL, pairs, probes, np.array([True, True]), np.array([3, 4]), ball)
    assert crafted.success8.all()
    assert (sizes("linf", to_unit(crafted.probes8) - pairs.probes) <= ball.epsilon + 1e-6).all()
    assert (crafted.evaluations > [3, 4]).all(), "the way to 8 bits is counted too"


def test_failures_are_clean_probes() -> None:
    pairs = task([100])
    crafted = finish(MODEL, pairs, pairs.probes + 0.5, np.array([False]), np.array([9]))
    np.testing.assert_array_equal(crafted.probes, pairs.probes)
    np.testing.assert_array_equal(crafted.probes8, 100)
    assert (crafted.success[0], crafted.success8[0], crafted.evaluations[0]) == (False, False, 9)


def test_other_libraries_stop_at_floats() -> None:
    from dataclasses import replace

    pairs = replace(task([100]), eight_bits=False)
    crafted = finish(MODEL, pairs, pairs.probes + np.float32(0.2), np.array([True]), np.array([1]))
    assert (crafted.success[0], crafted.success8[0]) == (True, False)
