"""The direction past a decision and a detector at once: known answers, and agreement with SciPy's optimizer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from toolkit.attacks.two_goals import toward_both

RISE = 0.02


def images(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 1, 1, 3)


def turned(first: float, second: float, along: tuple[float, ...], across: tuple[float, ...]) -> np.ndarray:
    found = toward_both(np.array([first]), np.array([second]), images(along), images(across), RISE)  # type: ignore[arg-type]
    assert found.dtype == np.float32
    return found[0, 0, 0].astype(np.float64)


@pytest.mark.parametrize(
    ("first", "second", "along", "across", "expected"),
    [
        # The other margin has room enough, or rises anyway: nothing changes, to the last bit.
        (-1.0, 9.0, (1.1, 0.3, 0), (-1, 0, 0), (1.1, 0.3, 0)),
        (9.0, -1.0, (-1, 0, 0), (1.1, 0.3, 0), (1.1, 0.3, 0)),
        (-1.0, -0.9, (1.1, 0, 0), (1.1, 0.3, 0), (1.1, 0, 0)),
        # The other margin is as small, and falls: what it loses is left out of the step.
        (-RISE, -RISE, (1, 0, 0), (-1, 1, 0), (1 / 5, 2 / 5, 0)),
        # A gradient of zero leads nowhere, and what is left is the other one.
        (-1.0, -1.1, (0, 0, 0), (0, 2, 0), (0, 2, 0)),
        (-1.0, -0.9, (0, 2, 0), (0, 0, 0), (0, 2, 0)),
        (-1.0, -1.0, (0, 0, 0), (0, 0, 0), (0, 0, 0)),
    ],
)
def test_known_answers(
    first: float, second: float, along: tuple[float, ...], across: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    found = turned(first, second, along, across)
    exact = expected in (along, across)
    np.testing.assert_allclose(found, np.array(expected, np.float32), rtol=0 if exact else 1e-6)


def test_opposed_goals_still_give_a_finite_step() -> None:
    found = turned(-1.0, -1.0, (1, 0, 0), (-1, 0, 0))
    assert np.isfinite(found).all()


components = st.tuples(*[st.floats(-1, 1, width=32)] * 3)


@settings(max_examples=60, deadline=None)
@given(first=st.floats(-1, 1), second=st.floats(-1, 1), along=components, across=components)
def test_the_step_is_the_shortest_that_scipy_finds(
    first: float, second: float, along: tuple[float, ...], across: tuple[float, ...]
) -> None:
    g, h = np.array(along, np.float64), np.array(across, np.float64)
    lengths = np.linalg.norm(g), np.linalg.norm(h)
    if min(lengths) < 0.2 or g @ h < -0.8 * lengths[0] * lengths[1]:
        return  # nearly opposed gradients have no short step
    least = min(first, second)
    goal = max(least, 0) + RISE
    needed = [
        {"type": "ineq", "fun": lambda s, v=v, m=m: m + v @ s - goal, "jac": lambda s, v=v: v}
        for v, m in ((g, first), (h, second))
    ]
    shortest = minimize(
        lambda s: s @ s, g + h, jac=lambda s: 2 * s, constraints=needed, method="SLSQP", options={"ftol": 1e-14}
    )
    assert shortest.success
    found = turned(first, second, along, across)
    # The found gradient says how far it is to the goal along it: that is the step.
    step = found * (goal - least) / (found @ found)
    np.testing.assert_allclose(np.linalg.norm(step), np.linalg.norm(shortest.x), rtol=2e-3, atol=1e-6)
    assert min(first + g @ step, second + h @ step) > goal - 1e-4
