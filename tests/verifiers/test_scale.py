"""Numbers of services as distances: the decision stays the service's, also for numbers next to its threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.verifiers.remote.scale import Rule, Scale
from toolkit.verifiers.scores import is_same

SAME = {
    "similarity": lambda number, threshold: number >= threshold,
    "distance": lambda number, threshold: number < threshold,
    "distance-at-most": lambda number, threshold: number <= threshold,
}
RANGES = {"similarity": (0.0, 100.0), "distance": (0.0, 2.0), "distance-at-most": (0.0, 2.0)}


@pytest.mark.parametrize("rule", SAME)
@given(share=st.floats(0.001, 0.999), steps=st.integers(-40, 40), other=st.floats(0, 1))
def test_the_decision_is_the_services(rule: Rule, share: float, steps: int, other: float) -> None:
    low, high = RANGES[rule]
    threshold = low + share * (high - low)
    scale = Scale(rule, low, high, threshold)
    near = threshold
    for _ in range(abs(steps)):
        near = float(np.nextafter(near, np.inf if steps > 0 else -np.inf))
    for number in (near, low + other * (high - low), low, high):
        distance = scale.distance(number)
        assert distance is not None
        assert 0 <= distance <= scale.decision.maximum
        assert bool(is_same(scale.decision, np.array(distance))) == SAME[rule](number, threshold), number
        expected = high - number if rule == "similarity" else number - low
        assert distance == pytest.approx(expected, abs=1e-12), "and the distance says how far the number is"


def test_a_number_out_of_the_range_is_none_unless_it_is_a_rounding_error() -> None:
    scale = Scale("distance", 0.0, 2.0, 0.68)
    assert scale.distance(-1e-9) == 0
    assert scale.distance(2 + 1e-9) == 2
    for number in (-0.01, 2.01, float("nan"), float("inf"), -float("inf")):
        assert scale.distance(number) is None
