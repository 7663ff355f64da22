"""The decision-based evolutionary attack on face verifiers (Dong et al. 2019, arXiv:1904.04433, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits
from toolkit.attacks.ladder import CARRY_RUNS, finish
from toolkit.attacks.norms import per_image, sizes
from toolkit.attacks.queries import Queries, find_starts
from toolkit.attacks.resampling import apply, linear_resize
from toolkit.parameters import number


@dataclass(frozen=True)
class Evolutionary:
    """Moves a successful image toward the clean probe with a (1+1)-CMA-ES, with decisions only.

    Each candidate is the current success, pulled toward the clean probe and mutated. It replaces the success if it
    reaches the goal. Mutations are drawn in a smaller image and enlarged. Coordinates with earlier successes are chosen
    more often. Each pair needs a start (see `find_starts`), and pairs without a start fail. Some queries are reserved
    for rounding the result to 8 bits.

    Attributes:
        budget: the number of queries per pair.
        side: the side of the smaller image.
        share: the share of its coordinates that one mutation changes.
        sigma: the length of a mutation, as a share of the distance to the clean probe.
        mu: the first pull toward the clean probe, as a share of the distance to it. The 1/5 rule adapts it.
        trials: the number of candidates over which the 1/5 rule measures the success rate.
        path_decay: the share of the evolution path that a success replaces (c_c).
        covariance_decay: the share of the covariance that a success replaces (c_cov).
    """

    name: ClassVar[str] = "evolutionary"
    needs: ClassVar[Needs] = "runtime"
    budget: int = number(1000, 100, 10_000_000)
    side: int = number(32, 1, 1024)
    share: float = number(0.05, 1e-6, 0.5)
    sigma: float = number(0.03, 0, 10)
    mu: float = number(0.01, 0, 0.5)
    trials: int = number(30, 1, 10_000)
    path_decay: float = number(0.01, 0, 1)
    covariance_decay: float = number(0.001, 0, 0.1)

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(budget=self.budget, minimizes="l2")

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs leave the batch when their queries are used up."""
        queries = Queries(model, task, self.budget - CARRY_RUNS)
        probes, success = find_starts(queries)
        started = np.flatnonzero(success)
        _, height, width, channels = task.probes.shape
        tall = linear_resize(min(self.side, height), height)[None]
        wide = linear_resize(min(self.side, width), width)[None]
        small = (tall.shape[2], wide.shape[2], channels)
        variance, path = np.ones((len(task), *small)), np.zeros((len(task), *small))
        mu, hits = np.full(len(task), self.mu), np.zeros(len(task), np.int64)
        for k in range(1, self.budget + 1):
            rows = queries.affording(started, 1)
            if not len(rows):
                break
            drawn = np.stack([self._mutate(task.generators[row], variance[row]) for row in rows])
            away = probes[rows] - task.probes[rows]
            far = sizes("l2", away)
            mutation = apply(tall, wide, drawn.astype(np.float32))
            length = self.sigma * far / np.maximum(sizes("l2", mutation), 1e-12)
            pulled = away * per_image(1 - mu[rows])
            turned = pulled + per_image(length) * mutation
            # The mutation changes only the direction. Only the pull changes the distance to the clean probe.
            turned *= per_image(sizes("l2", pulled) / np.maximum(sizes("l2", turned), 1e-12))
            candidates = np.clip(task.probes[rows] + turned, 0, 1)
            there = queries.succeeds(rows, candidates)
            better = rows[there]
            probes[better] = candidates[there]
            hits[better] += 1
            keep = 1 - self.path_decay
            path[better] = keep * path[better] + np.sqrt(1 - keep**2) * drawn[there]
            variance[better] += self.covariance_decay * (np.square(path[better]) - variance[better])
            if k % self.trials == 0:
                # The limit prevents a pull of 1, which would end at the clean probe itself.
                mu[rows] = np.minimum(mu[rows] * np.exp(hits[rows] / self.trials - 0.2), 0.5)
                hits[rows] = 0
        return finish(model, task, probes, success, queries.spent)

    def _mutate(self, generator: np.random.Generator, variance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a Gaussian mutation of random coordinates. Their probabilities are proportional to their variances."""
        count = max(1, round(self.share * variance.size))
        chosen = generator.choice(variance.size, count, replace=False, p=variance.ravel() / variance.sum())
        mutation = np.zeros(variance.size)
        mutation[chosen] = generator.standard_normal(count) * np.sqrt(variance.ravel()[chosen])
        return mutation.reshape(variance.shape)


ATTACK = Evolutionary()
