"""The Square attack (Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 to 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, reached
from toolkit.attacks.norms import Ball, Norm
from toolkit.attacks.queries import Queries, craft_8bit
from toolkit.parameters import number
from toolkit.pixels import Images

# The share of pixels in a square is halved after these shares of the budget (section 5: queries out of 10,000).
_HALVINGS = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]) / 10_000


def _signs(generator: np.random.Generator, shape: tuple[int, ...]) -> Images:
    return generator.integers(2, size=shape).astype(np.float32) * 2 - 1


def _place(generator: np.random.Generator, height: int, width: int, side: int) -> tuple[slice, slice]:
    r, s = generator.integers(height - side + 1), generator.integers(width - side + 1)
    return slice(r, r + side), slice(s, s + side)


def _bump(generator: np.random.Generator, side: int) -> Images:
    """Return two hills of opposite sign, side by side or one above the other, with unit norm (equation 2)."""

    def hill(height: int, width: int) -> Images:
        rings = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in (height, width))
        ring = np.minimum(*np.meshgrid(*rings, indexing="ij"))
        # From the outer ring inward, the values are 1/n^2, 1/n^2 + 1/(n-1)^2 and so on.
        most = (min(height, width) + 1) // 2
        return np.cumsum(1 / (most - np.arange(most)) ** 2)[ring].astype(np.float32)

    half = side // 2
    bump = np.concatenate([hill(half, side), -hill(side - half, side)]) if half else np.ones((1, 1), np.float32)
    bump = bump.T if generator.random() < 0.5 else bump
    return bump / np.linalg.norm(bump)


def _start(generator: np.random.Generator, norm: Norm, epsilon: float, shape: tuple[int, ...]) -> Images:
    """Return the first perturbation: vertical stripes for Linf, a grid of 5 x 5 bumps for L2."""
    height, width, channels = shape
    if norm == "linf":
        return np.broadcast_to(_signs(generator, (1, width, channels)), shape) * np.float32(epsilon)
    delta, side = np.zeros(shape, np.float32), max(1, min(height, width) // 5)
    for r in range(0, height - side + 1, side):
        for s in range(0, width - side + 1, side):
            bump = _bump(generator, side)[..., None] * _signs(generator, (channels,))
            delta[r : r + side, s : s + side] = bump
    return delta * np.float32(epsilon / np.linalg.norm(delta))


def _move_linf(generator: np.random.Generator, delta: Images, epsilon: float, side: int) -> Images:
    """Replace one square of the perturbation. Each channel changes by `epsilon` up or down."""
    window = _place(generator, delta.shape[0], delta.shape[1], side)
    moved = delta.copy()
    moved[window] = _signs(generator, (delta.shape[2],)) * np.float32(epsilon)
    return moved


def _move_l2(generator: np.random.Generator, delta: Images, epsilon: float, side: int) -> Images:
    """Move the norm of one window, and the unused norm of the ball, to a bump in another window (algorithm 3)."""
    height, width, channels = delta.shape
    into, out_of = _place(generator, height, width, side), _place(generator, height, width, side)
    unused = max(0.0, epsilon**2 - float(np.sum(np.square(delta, dtype=np.float64))))
    moved = delta.copy()
    bump = _bump(generator, side)
    for channel in range(channels):
        old, plane = delta[..., channel], moved[..., channel]
        both = np.zeros((height, width), np.bool_)
        both[into] = both[out_of] = True
        available = np.sqrt(np.sum(np.square(old[both], dtype=np.float64)) + unused / channels)
        new = bump * _signs(generator, ()) + old[into] / max(float(np.linalg.norm(old[into])), 1e-12)
        plane[out_of] = 0
        plane[into] = new * np.float32(available / max(float(np.linalg.norm(new)), 1e-12))
    return moved


@dataclass(frozen=True)
class Square:
    """Changes random squares on the surface of a ball, and keeps changes that increase the margin.

    Every query is rounded to 8 bits inside the ball.

    Attributes:
        name: the name of the attack.
        norm: the norm of the ball.
        epsilon: the radius of the ball, in units of the pixel range.
        budget: the number of queries per pair.
        share: the share of pixels in the first square. It decreases with the number of queries. The authors' code
            starts with 0.8. The values 0.05 and 0.1 of section 5 are for 10,000 queries, and too small for hundreds.
    """

    needs: ClassVar[Needs] = "runtime"
    name: str = "square"
    norm: Norm = "linf"
    epsilon: float = number(8 / 255, 1e-6, 1000)
    budget: int = number(500, 1, 10_000_000)
    share: float = number(0.8, 1e-6, 1)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(norm=self.norm, epsilon=self.epsilon, budget=self.budget, graded=True)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Solved pairs leave the batch."""
        ball, queries = Ball(self.norm, self.epsilon), Queries(model, task, self.budget)
        height, width = task.probes.shape[1:3]
        probes, best = task.probes.copy(), np.full(len(task), -np.inf)
        success = np.zeros(len(task), np.bool_)
        rows = np.arange(len(task))
        for k in range(self.budget):
            rows = rows[~success[rows]]
            if not len(rows):
                break
            share = self.share / 2 ** np.count_nonzero(k > _HALVINGS * self.budget)
            side = int(np.clip(round(np.sqrt(share * height * width)), 1, min(height, width)))
            clean = task.probes[rows]
            delta = np.stack(
                [self._propose(task.generators[row], probes[row] - task.probes[row], side, k) for row in rows]
            )
            moved = ball.round(clean, ball.project(clean, clean + delta))
            margin = queries.margins(rows, moved)
            better = margin > best[rows]
            probes[rows[better]], best[rows[better]] = moved[better], margin[better]
            success[rows] = reached(task, rows, margin)
        return craft_8bit(task, probes, success, queries.spent)

    def _propose(self, generator: np.random.Generator, delta: Images, side: int, k: int) -> Images:
        if k == 0:
            return _start(generator, self.norm, self.epsilon, delta.shape)
        move = _move_linf if self.norm == "linf" else _move_l2
        return move(generator, delta, self.epsilon, max(side, 2) if self.norm == "l2" else side)


ATTACK = Square()
