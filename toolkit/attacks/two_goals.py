"""One direction for two goals: to change the decision, and to pass the detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.norms import per_image
from toolkit.pixels import Images

# The squared sine of the smallest angle at which two gradients still count as two directions.
_PARALLEL = 1e-4


def toward_both(
    first: NDArray[np.float64], second: NDArray[np.float64], along: Images, across: Images, rise: float
) -> Images:
    """Return the gradient of the smaller margin, turned so that the other margin does not fall below it.

    Its direction is that of the shortest step after which both linearized margins are at least `rise` above the smaller
    one, or above zero if the smaller one is negative. Following only the gradient of the smaller margin wastes steps,
    because each step undoes the one before. Attacks that respect a detector in this way are known from Bryniarski et
    al. (2021, arXiv:2106.15023), who make the two gradients orthogonal; the step here also uses the margins themselves.

    Args:
        first: (M,), one margin.
        second: (M,), the other.
        along: (M, H, W, 3), the gradients of the first.
        across: (M, H, W, 3), the gradients of the second.
        rise: how much of both margins the step is for, in units of the margin.

    Returns:
        (M, H, W, 3) float32. Its length is the slope of the smaller margin along the direction, so that the distance to
        the goal can be estimated as with a gradient. It is the gradient of the smaller margin itself wherever that
        leads the other margin far enough, or where the other one has no gradient.
    """
    least, is_first = np.minimum(first, second), first <= second
    goal = np.maximum(least, 0) + rise
    a, b, c = (_products(x, y) for x, y in ((along, along), (across, across), (along, across)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        x, y = _shortest(goal - first, goal - second, a, b, c)
        # Along the step, the smaller margin rises by goal - least over the step's length.
        scale = (goal - least) / (x * x * a + 2 * x * y * c + y * y * b)
        x, y = x * scale, y * scale
        # The other gradient is not needed, or zero: nothing is rounded then.
        alone = np.where(is_first, y, x) == 0
        alone |= ~(np.isfinite(x) & np.isfinite(y))
        x, y = np.where(alone, is_first, x), np.where(alone, ~is_first, y)
        # What is not finite stays so: who asked refuses it.
        return (per_image(x) * along + per_image(y) * across).astype(np.float32)


def _shortest(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    c: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights (x, y) of the shortest step x g + y h with g.step >= first and h.step >= second.

    At least one of `first` and `second` is positive. `a`, `b` and `c` are g.g, h.h and g.h. Either one condition
    implies the other, or both hold with equality.
    """
    only_g, only_h = first / a, second / b
    g_suffices, h_suffices = (first > 0) & (only_g * c >= second), (second > 0) & (only_h * c >= first)
    determinant = np.maximum(a * b - c * c, _PARALLEL * a * b)
    x, y = (np.maximum(v, 0) / determinant for v in (first * b - second * c, second * a - first * c))
    return (
        np.where(g_suffices, only_g, np.where(h_suffices, 0, x)),
        np.where(g_suffices, 0, np.where(h_suffices, only_h, y)),
    )


def _products(x: Images, y: Images) -> NDArray[np.float64]:
    return np.einsum("nhwc,nhwc->n", x, y, dtype=np.float64)
