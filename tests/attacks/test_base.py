"""What all attacks share, on a verifier and a detector whose margins and gradients are formulas."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.models import Linear
from toolkit.attacks.base import (
    AIM,
    CLEARLY,
    Attack,
    Task,
    ascent,
    ascent_margins,
    clearly_reached,
    flipped,
    is_trained,
    is_worn,
    margins,
    reached,
)
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.glasses import Glasses
from toolkit.attacks.universal import Universal
from toolkit.errors import InputError
from toolkit.verifiers.manifest import Decision, Metric

ROWS = np.array([0, 1])
THRESHOLD = 2.0
ALARM = 0.3
WEIGHTS = np.array([[10.0, 0], [0, 10.0], [0, 0]])


@dataclass(frozen=True)
class Seen(Linear):
    """The embedding of a pixel is red and green, in units of 10; the attack score grows with blue by `slope`."""

    slope: float = 1.0

    def embed_and_score(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.embed(crops), (self.slope * crops[:, 0, 0, 2]).astype(np.float32)

    def scores_and_gradients(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient = np.zeros_like(crops)
        gradient[..., 2] = self.slope
        return self.slope * crops[:, 0, 0, 2].astype(np.float64), gradient


def model(metric: Metric = "euclidean", slope: float = 1.0) -> Seen:
    return Seen(WEIGHTS, Decision(metric, THRESHOLD, 9.0), slope)


def pixels(*colors: tuple[float, float, float]) -> np.ndarray:
    return np.array(colors, np.float32).reshape(-1, 1, 1, 3)


def task_of(metric: Metric = "euclidean", alarm: float = np.inf) -> Task:
    """The first pair dodges, the second impersonates; both references have the embedding (0, 4)."""
    generators = tuple(np.random.default_rng(i) for i in range(2))
    references = np.tile(np.array([0, 4], np.float32), (2, 1))
    decision = Decision(metric, THRESHOLD, 9.0)
    return Task(pixels((0, 0, 0), (0, 0, 0)), references, np.array([True, False]), decision, generators, alarm=alarm)


def test_a_distance_at_the_threshold_is_different() -> None:
    d = np.array([1.9, 2.0, 2.1] * 2)
    dodging = np.repeat([True, False], 3)
    expected = [False, True, True, True, False, False]
    assert flipped(d, dodging, Decision("euclidean", THRESHOLD, 9.0)).tolist() == expected
    # So a margin of zero is a success for dodging only.
    margin = np.array([-0.1, 0.0, 0.1] * 2)
    assert reached(task_of(), np.repeat(ROWS, 3), margin).tolist() == [False, True, True, False, False, True]


def test_a_clear_success_is_beyond_the_threshold_by_a_share_of_it() -> None:
    share = CLEARLY * THRESHOLD
    assert clearly_reached(task_of(), ROWS, np.full(2, 0.9 * share)).tolist() == [False, False]
    assert clearly_reached(task_of(), ROWS, np.full(2, 1.1 * share)).tolist() == [True, True]


@pytest.mark.parametrize(("metric", "distance"), [("euclidean", 5.0), ("squared-euclidean", 25.0), ("cosine", 1.0)])
def test_margins_are_how_far_the_distance_is_beyond_the_threshold(metric: Metric, distance: float) -> None:
    # The embedding (3, 0) is 5 from (0, 4), at a right angle.
    images = pixels((0.3, 0, 0), (0.3, 0, 0))
    expected = np.array([distance - THRESHOLD, THRESHOLD - distance])
    for found in (
        margins(model(metric), task_of(metric), ROWS, images),
        margins(model(metric), task_of(metric), ROWS[::-1], images)[::-1],
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "squared-euclidean"])
def test_ascent_has_the_margins_and_the_gradient_that_raises_them(metric: Metric) -> None:
    images = pixels((0.3, 0, 0), (0.3, 0, 0))
    margin, gradient = ascent(model(metric), task_of(metric), ROWS, images)
    np.testing.assert_allclose(margin, margins(model(metric), task_of(metric), ROWS, images), rtol=1e-6)
    np.testing.assert_allclose(ascent_margins(model(metric), task_of(metric), ROWS, images), margin)
    # The distance from (0, 4) to (3, 0) grows along (3, -4), by 1 or by 2 * 5; a pixel moves it by 10.
    away = 10 * np.array([0.6, -0.8, 0]) * (1 if metric == "euclidean" else 10)
    np.testing.assert_allclose(gradient[:, 0, 0], [away, -away], rtol=1e-6)
    assert gradient.dtype == np.float32, "gradients take no more memory than images"


# At a quarter of what the alarm allows: 3/4 of the threshold is left of a distance, half of it of a squared one.
@pytest.mark.parametrize(("metric", "left"), [("euclidean", 0.75), ("squared-euclidean", 0.5), ("cosine", 0.5)])
def test_a_detector_bounds_the_margin_by_what_is_left_of_its_alarm(metric: Metric, left: float) -> None:
    task = task_of(metric, ALARM)
    images = pixels((9, 0, ALARM / 4), (0, 0.4, ALARM / 4))
    unseen = margins(model(metric, slope=0), task, ROWS, images)
    alone = margins(model(metric), replace(task, alarm=np.inf), ROWS, images)
    np.testing.assert_array_equal(unseen, np.minimum(alone, THRESHOLD), "a score of 0 leaves the whole threshold")
    score = np.float64(images[0, 0, 0, 2])
    assert score / ALARM == pytest.approx(0.25)
    power = 1 if metric == "euclidean" else 0.5
    bound = THRESHOLD * (1 - (score / ALARM) ** power)
    assert bound == pytest.approx(left * THRESHOLD, rel=1e-6)
    # In float64: scores in float32 lose nothing more.
    np.testing.assert_allclose(margins(model(metric), task, ROWS, images), np.minimum(alone, bound), rtol=1e-12)


@pytest.mark.parametrize(("metric", "power"), [("euclidean", 1.0), ("squared-euclidean", 0.5)])
def test_ascent_leads_past_the_detector_with_room_for_rounding(metric: Metric, power: float) -> None:
    """The gradient is that of the smaller margin, and the detector's margin ends at a share of the alarm."""
    aim = AIM * ALARM
    task = task_of(metric, ALARM)
    # The first is seen and dodges by far; the second is not seen, and does not impersonate.
    images = pixels((9, 0, 2 * aim), (0.3, 0, aim / 4))
    margin, gradient = ascent(model(metric, slope=0.5), task, ROWS, images)
    bare, decision = ascent(model(metric, slope=0.5), replace(task, alarm=np.inf), ROWS, images)
    # The first has a score at the aim: its margin is 0, and falls by power * threshold / aim with the score.
    np.testing.assert_allclose(margin, [0, bare[1]], atol=1e-6)
    np.testing.assert_allclose(gradient[0, 0, 0], [0, 0, -0.5 * power * THRESHOLD / aim], rtol=1e-6)
    np.testing.assert_array_equal(gradient[1], decision[1])
    half = pixels((9, 0, aim / 2), (0.3, 0, aim / 4))
    margin, gradient = ascent(model(metric, slope=0.5), task, ROWS, half)
    # A quarter of the aim: the square root is twice as steep there.
    np.testing.assert_allclose(margin[0], THRESHOLD * (1 - 0.25**power), rtol=1e-6)
    steeper = 0.25 ** (power - 1)
    np.testing.assert_allclose(gradient[0, 0, 0, 2], -0.5 * power * THRESHOLD / aim * steeper, rtol=1e-6)


def test_a_score_of_zero_has_a_slope() -> None:
    """The square root has none there; attacks start at clean probes, whose score is zero."""
    task = task_of("squared-euclidean", ALARM)
    _, gradient = ascent(model("squared-euclidean"), task, ROWS, pixels((9, 0, 0), (0, 0.4, 0)))
    # As steep as at a millionth of the aim.
    np.testing.assert_allclose(gradient[0, 0, 0, 2], -0.5 * THRESHOLD / (AIM * ALARM) * 1000, rtol=1e-6)


@pytest.mark.parametrize("slope", [np.nan, np.inf])
def test_a_detector_without_a_finite_gradient_is_refused(slope: float) -> None:
    class Broken(Seen):
        def scores_and_gradients(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.full(len(crops), ALARM), np.full_like(crops, slope)

    broken = Broken(WEIGHTS, Decision("euclidean", THRESHOLD, 9.0))
    with pytest.raises(InputError, match="NaN or infinite"):
        ascent(broken, task_of(alarm=ALARM), ROWS, pixels((9, 0, 0), (9, 0, 0)))


def test_what_an_attack_can_is_known_by_its_methods_and_not_by_the_names_of_its_parameters() -> None:
    @dataclass(frozen=True)
    class Named(DeepFool):
        pixels: int = 3
        train: str = "no"

    attacks: tuple[Attack, ...] = (Glasses(), Universal(), DeepFool(), Named())
    assert [is_worn(attack) for attack in attacks] == [True, False, False, False]
    assert [is_trained(attack) for attack in attacks] == [False, True, False, False]
