"""Ladders: the smallest strength that succeeds, found with few images, and the way from a float probe to 8 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import Linear
from toolkit.attacks.base import Task
from toolkit.attacks.ladder import Found, carry_to_8bit, finish, first_success, smallest_success
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

    first_success(MODEL, pairs, np.array([0]), np.arange(30)[None], 8, make, first=1)
    assert sizes_of_batches == [1, 2, 4, 8, 8, 7]


def test_a_ladder_goes_on_after_a_batch_of_nothing_but_skipped_rungs() -> None:
    pairs = task([100])
    make, tried = script(pairs, np.arange(RUNGS)[None] == 5)
    climb = first_success(MODEL, pairs, np.array([0]), np.array([[-1, -1, 5]]), 2, make)
    assert (climb.rung.tolist(), climb.runs.tolist(), tried) == ([5], [1], [(0, 5)])
    assert climb.runs.dtype == np.int64, "runs are counted in whole numbers"


def test_of_rungs_as_near_as_each_other_the_first_is_the_nearest() -> None:
    pairs = task([100])
    climb = first_success(MODEL, pairs, np.array([0]), np.arange(6)[None], 2, lambda rows, rungs: pairs.probes[rows])
    assert climb.nearest.tolist() == [0]


def test_the_coarse_search_is_followed_by_one_batch_of_the_rungs_below() -> None:
    pairs = task([100])
    make, tried = script(pairs, np.arange(RUNGS)[None] >= 20)
    rungs, runs = smallest_success(MODEL, pairs, np.array([0]), RUNGS, 6, make, 4)
    # Batches of 1, 2 and 4 rungs; the rungs of a batch are run together.
    coarse, fine = [0, 6, 12, 18, 24, 30, 36], [19, 20, 21, 22, 23]
    assert tried == [(0, rung) for rung in coarse + fine]
    assert (rungs.tolist(), runs.tolist()) == ([20], [12])


def test_the_strongest_rung_is_always_tried() -> None:
    pairs = task([100])

    def make(rows: np.ndarray, rungs: np.ndarray) -> np.ndarray:
        # Nearest to the goal at the bottom, and beyond it at the top alone.
        size = np.where(rungs == RUNGS - 1, 0.2, 0.05 - 0.001 * rungs)
        return (pairs.probes[rows] + size[:, None, None, None]).astype(np.float32)

    assert smallest_success(MODEL, pairs, np.array([0]), RUNGS, 6, make)[0].tolist() == [RUNGS - 1]


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


def test_a_ball_without_an_8bit_success_has_none() -> None:
    """Rounded within the ball, 25.6 levels are 25, and the goal is 25.5 away."""
    pairs = task([100])
    probes = pairs.probes + np.float32(25.6 / 255)
    for ball in (Ball("linf", 25.6 / 255), None):
        crafted = finish(MODEL, pairs, probes, np.array([True]), np.array([0]), ball)
        assert crafted.success[0]
        assert crafted.success8[0] == (ball is None)


@pytest.mark.parametrize("side", [1, -1])
def test_what_leaves_the_range_takes_up_nothing_of_the_ball(side: int) -> None:
    """A part near the end of the range can change by 10 levels, so that the rest has to change by 41, of 45 possible.

    If the change were put into the ball before it is clipped, each part would have 33 levels of it.
    """
    pairs = task([100])
    pairs.probes[0, :2] = (245 if side > 0 else 10) / 255
    pairs = replace(pairs, references=MODEL.embed(pairs.probes))
    ball = Ball("l2", 230 / 255)
    probes8, success8, _ = carry_to_8bit(
        MODEL, pairs, pairs.probes + np.float32(side * 10 / 255), np.array([True]), ball
    )
    assert success8[0]
    assert sizes("l2", to_unit(probes8) - pairs.probes)[0] <= ball.epsilon * 1.0001


def test_one_scale_at_a_time_in_a_ball_and_several_without_one() -> None:
    """Runs are counted for the attacker's budget, and a probe in a ball mostly needs the first few."""
    pairs = task([100, 100])
    goal = np.array([True, False])
    # Of 22 levels the fourth scale makes 26.7. Tried: 0 and 6, then the five rungs between.
    _, success8, runs = carry_to_8bit(MODEL, pairs, pairs.probes + np.float32(22 / 255), goal, Ball("linf", 40 / 255))
    assert (success8.tolist(), runs.tolist()) == ([True, False], [2 + 5, 0])
    # Of 12 levels the sixteenth makes 26.2. Tried: 0, then 6 and 12, then 18 to 36, then the five rungs below 18.
    _, success8, runs = carry_to_8bit(MODEL, pairs, pairs.probes + np.float32(12 / 255), goal)
    assert (success8.tolist(), runs.tolist()) == ([True, False], [1 + 2 + 4 + 5, 0])
    assert runs.dtype == np.int64


def test_failures_are_clean_probes() -> None:
    pairs = task([100])
    crafted = finish(MODEL, pairs, pairs.probes + 0.5, np.array([False]), np.array([9]))
    np.testing.assert_array_equal(crafted.probes, pairs.probes)
    np.testing.assert_array_equal(crafted.probes8, 100)
    assert (crafted.success[0], crafted.success8[0], crafted.evaluations[0]) == (False, False, 9)


def test_other_libraries_stop_at_floats() -> None:
    pairs = replace(task([100]), eight_bits=False)
    crafted = finish(MODEL, pairs, pairs.probes + np.float32(0.2), np.array([True]), np.array([1]))
    assert (crafted.success[0], crafted.success8[0]) == (True, False)


def gray(pairs: Task, *levels: float) -> np.ndarray:
    """The probes of the first pairs, each lighter by some levels."""
    return np.stack([pairs.probes[i] + np.float32(level / 255) for i, level in enumerate(levels)])


def test_a_success_in_a_ball_is_kept_until_one_survives_rounding() -> None:
    """The goal is 25.5 levels away, so that 25.6 of them are a success as a float alone."""
    pairs, ball = task([100, 100, 100]), Ball("linf", 25.6 / 255)
    found = Found.nothing(pairs)
    assert not found.success.any()
    assert not found.done.any()
    assert found.evaluations.dtype == np.int64, "runs are counted in whole numbers"
    np.testing.assert_array_equal(found.probes, pairs.probes)
    rows, first = np.array([0, 1]), gray(pairs, 25.6, 25.6)
    found.take(MODEL, pairs, rows, first, ball)
    assert (found.success.tolist(), found.done.tolist()) == ([True, True, False], [False, False, False])
    assert found.evaluations.tolist() == [1, 1, 0]
    # Another success that does not survive is not taken in place of the first; one that survives is.
    larger = Ball("linf", 40 / 255)
    found.take(MODEL, pairs, rows[:1], gray(pairs, 25.59), ball)
    found.take(MODEL, pairs, rows[1:], gray(pairs, 0, 30)[1:], larger)
    np.testing.assert_array_equal(found.probes, [first[0], gray(pairs, 0, 30)[1], pairs.probes[2]])
    assert (found.success.tolist(), found.done.tolist()) == ([True, True, False], [False, True, False])
    assert found.evaluations.tolist() == [2, 2, 0]
    found.take(MODEL, pairs, rows[:0], first[:0], ball)
    assert found.evaluations.tolist() == [2, 2, 0]


def test_whoever_wants_no_8_bits_is_done_with_the_first_success() -> None:
    pairs = replace(task([100]), eight_bits=False)
    found = Found.nothing(pairs)
    found.take(MODEL, pairs, np.array([0]), gray(pairs, 25.6), Ball("linf", 25.6 / 255))
    assert (found.success.tolist(), found.done.tolist(), found.evaluations.tolist()) == ([True], [True], [0])
    np.testing.assert_array_equal(found.probes, gray(pairs, 25.6))
