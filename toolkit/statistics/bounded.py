"""Thresholds whose error rate is bounded from above at a stated confidence, where trials may share people.

A trial counts as accepted if its value is strictly below the threshold. A threshold is an order statistic of the n
values: if the threshold is the k-th smallest value, the true rate has a Beta(k, n - k + 1) distribution or is smaller
(Conover 1999, section 3.2), so that its upper bound is the exact bound of k - 1 accepted trials (Clopper and Pearson
1934). This assumes independent trials. Trials that share people are not independent, and two more rules allow for them:

- The same bound on the effective number of trials, n / design effect (Korn and Graubard 1998). The design effect is the
  variance of the rate with every pair of trials that share a person (Aronow, Samii and Assenova 2015), divided by the
  variance of independent trials. With few people it is itself uncertain, which Student's t accounts for. This rule also
  works where no trial is accepted.
- The bootstrap over people (`toolkit.statistics.bootstrap`).

The bound is the largest of the three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.bootstrap import Identities, people_draws
from toolkit.statistics.intervals import trials_to_claim
from toolkit.statistics.verification import Floats

Unit = Literal["people", "images"]
Rule = Literal["independent", "effective", "bootstrap"]
DRAWS = 1000
# Below this confidence a bound may be less than the rate itself.
_LEAST_CONFIDENCE = 0.5
# At lower confidences Student's t hardly tells few people from many.
_LEAST_TAIL = 0.75
# The design effect is estimated where at least this many trials are accepted.
_FEWEST_ACCEPTED = 3
# Digits of a threshold. It is rounded down, so that copying what is printed keeps the bound.
_DIGITS = 6


@dataclass(frozen=True)
class Members:
    """Who takes part in each of n trials.

    Attributes:
        unit: what the numbers stand for: people, or images if people have no names.
        numbers: one array (n,) of integers if a trial shows one person, two arrays if it compares two.
    """

    unit: Unit
    numbers: tuple[Identities, ...]

    def at(self, places: NDArray[np.intp]) -> Members:
        """Return the members of some of the trials."""
        return Members(self.unit, tuple(numbers[places] for numbers in self.numbers))


@dataclass(frozen=True)
class Bound:
    """The one-sided upper bound of a rate at one threshold.

    Attributes:
        confidence: the true rate exceeds `upper` with probability at most 1 - confidence.
        trials: the number of trials.
        unit, units: what the trials share, and how many of them there are. None if this is unknown; the trials then
            count as independent.
        effective_trials: how many independent trials tell as much as these.
        independent: the exact bound, if all trials were independent.
        effective: the exact bound for the effective number of trials; None without units.
        bootstrap: the bound of the bootstrap over units; None without units.
        upper: the largest of the three.
        binding: the rule that keeps the threshold from being larger; None if the threshold was chosen without bounds.
    """

    confidence: float
    trials: int
    unit: Unit | None
    units: int | None
    effective_trials: float
    independent: float
    effective: float | None
    bootstrap: float | None
    upper: float
    binding: Rule | None


@dataclass(frozen=True)
class _Sample:
    """Sorted values, with the members in the same order."""

    values: Floats
    members: Members | None
    rate: float
    confidence: float
    seed: int
    draws: int


def bounded_threshold(
    values: Floats,
    members: Members | None,
    rate: float,
    confidence: float = 0.95,
    *,
    name: str = "a rate",
    what: str = "trials",
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, Bound]:
    """Return the largest threshold whose rate is at most `rate` at this confidence, and its bound.

    Args:
        values: (n,) float, finite.
        members: who takes part in each trial; None if all trials are independent.
        rate: the largest acceptable true rate, between 0 and 1.
        confidence: the one-sided confidence, at least 0.5 and below 1.
        name: what the rate is, for messages.
        what: what the trials are, for messages.
        seed: the seed of the bootstrap.
        draws: the number of resamples.

    Returns:
        The threshold, rounded down to six digits, and the bound of the rate there.

    Raises:
        InputError: an argument is not valid.
        InsufficientError: the trials are too few to support any threshold.
    """
    _check(rate, confidence)
    sample = _sorted(values, members, rate, confidence, seed, draws)
    n, needed = len(sample.values), trials_to_claim(rate, confidence)
    share = f"{name} of {rate:g} at a confidence of {100 * confidence:g} %"
    if n < needed:
        raise InsufficientError(
            f"{share} needs at least {needed} {what}, but there are {n}; these support {name} of "
            f"{_supported(n, confidence):.2g} at best"
        )
    design = _design_effect(sample)
    allowed: dict[Rule, int] = {"independent": _largest_count(n, 1.0, rate, confidence)}
    if sample.members is not None:
        allowed["effective"] = _largest_count(n, design, rate, confidence)
        if allowed["effective"] < 0:
            raise InsufficientError(
                f"{share} needs at least {needed} independent {what}; the {n} {what} share {sample.members.unit} and "
                f"tell no more than {math.floor(n / design)} independent ones, which support {name} of "
                f"{_supported(n / design, confidence):.2g} at best; give more {what}, of more people"
            )
        allowed["bootstrap"] = _bootstrapped_count(sample, min(allowed.values()))
    binding = min(allowed, key=lambda rule: allowed[rule])
    threshold = rounded_down(float(sample.values[allowed[binding]]))
    return threshold, _bound(sample, threshold, design, binding)


def bound_at(
    values: Floats,
    members: Members | None,
    threshold: float,
    rate: float,
    confidence: float = 0.95,
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Bound:
    """Return the bound of the rate at a threshold that was chosen otherwise. See `bounded_threshold`.

    Raises:
        InputError: an argument is not valid.
    """
    _check(rate, confidence)
    sample = _sorted(values, members, rate, confidence, seed, draws)
    return _bound(sample, threshold, _design_effect(sample), None)


def rounded_down(value: float) -> float:
    """Return the largest number of six digits that is not above `value`."""
    return float(Context(prec=_DIGITS, rounding=ROUND_FLOOR).create_decimal_from_float(value))


def _check(rate: float, confidence: float) -> None:
    if not 0 < rate < 1:
        raise InputError(f"the target rate is {rate:g}; it must be between 0 and 1")
    if not _LEAST_CONFIDENCE <= confidence < 1:
        raise InputError(f"confidence is {confidence:g}; it must be at least 0.5 and below 1, for example 0.95")


def _sorted(values: Floats, members: Members | None, rate: float, confidence: float, seed: int, draws: int) -> _Sample:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise InputError(f"values {found.shape} must be one row of finite numbers")
    order = np.argsort(found, kind="stable")
    if members is not None and any(numbers.shape != found.shape for numbers in members.numbers):
        raise InputError(f"every one of the {len(found)} trials needs its {members.unit}")
    return _Sample(found[order], None if members is None else members.at(order), rate, confidence, seed, draws)


def _supported(trials: float, confidence: float) -> float:
    """Return the rate that trials without any accepted one support."""
    return float(-np.expm1(np.log1p(-confidence) / trials)) if trials > 0 else 1.0


def _exact(accepted: NDArray[np.float64], trials: int, design: float, confidence: float) -> NDArray[np.float64]:
    """Return the exact upper bounds of counts of accepted trials, each trial counting as 1 / design."""
    return np.asarray(stats.beta.ppf(confidence, accepted / design + 1, (trials - accepted) / design))


def _largest_count(trials: int, design: float, rate: float, confidence: float) -> int:
    """Return how many trials may be accepted so that the exact bound is at most `rate`; -1 if not even none."""
    counts = np.arange(min(math.floor(rate * trials) + 1, trials), dtype=np.float64)
    # The bound rises with the count. The tolerance is for rounding errors.
    return int(np.searchsorted(_exact(counts, trials, design, confidence), rate * (1 + 1e-12), side="right")) - 1


def _design_effect(sample: _Sample) -> float:
    """Return how many trials tell as much as one independent trial; at least 1."""
    n = len(sample.values)
    if sample.members is None or n < 2:
        return 1.0
    count = min(max(_FEWEST_ACCEPTED, math.floor(sample.rate * n + 1e-9)), n - 1)
    accepted = sample.values < sample.values[count]
    if not accepted.any():
        accepted = sample.values <= sample.values[0]
    error = accepted - accepted.mean()
    alone = float(np.sum(error**2))
    if alone == 0:
        return 1.0
    first, *others = _numbered(sample.members)
    units = 1 + int(max(numbers.max() for numbers in (first, *others)))
    together = np.bincount(first, error, units)
    shared = 0.0
    for second in others:
        together += np.bincount(second, error, units)
        # Two trials with the same two people share both. They are counted twice above.
        both = np.minimum(first, second) * np.int64(units) + np.maximum(first, second)
        shared += float(np.sum(np.bincount(np.unique(both, return_inverse=True)[1], error) ** 2))
    of_trials, of_units = stats.t.ppf(max(sample.confidence, _LEAST_TAIL), [n - 1, max(units - 1, 1)])
    uncertain = max(1.0, float(of_units / of_trials) ** 2)
    return max(1.0, (float(np.sum(together**2)) - shared) / alone) * uncertain


def _numbered(members: Members) -> list[NDArray[np.int64]]:
    """Return the members as numbers from 0."""
    flat = np.unique(np.concatenate(members.numbers), return_inverse=True)[1]
    return list(flat.astype(np.int64).reshape(len(members.numbers), -1))


def _rates(sample: _Sample, most: int) -> Iterator[Floats]:
    """Yield for each draw of people the weighted rates (most + 1,) if the 0 to `most` smallest values are accepted.

    Draws without any trial are skipped.
    """
    if sample.members is None:
        return
    numbers = _numbered(sample.members)
    people = 1 + int(max(n.max() for n in numbers))
    for times in people_draws(people, np.random.default_rng(sample.seed), sample.draws):
        weight = np.prod([times[n] for n in numbers], axis=0)
        if total := weight.sum():
            yield np.append(0.0, np.cumsum(weight[:most])) / total


def _bootstrapped_count(sample: _Sample, most: int) -> int:
    """Return how many trials, up to `most`, may be accepted so that enough draws have at most the rate."""
    limit = sample.rate + 1e-12
    counts = sorted(int(np.searchsorted(rates, limit, side="right")) - 1 for rates in _rates(sample, most))
    return counts[len(counts) - math.ceil(sample.confidence * len(counts) - 1e-9)] if counts else most


def _bound(sample: _Sample, threshold: float, design: float, binding: Rule | None) -> Bound:
    n = len(sample.values)
    accepted = int(np.searchsorted(sample.values, threshold, side="left"))
    count = np.array([accepted], np.float64)

    def exact(of: float) -> float:
        return 1.0 if accepted == n else float(_exact(count, n, of, sample.confidence)[0])

    known = sample.members
    independent = exact(1.0)
    effective = bootstrap = None
    if known is not None:
        effective = exact(design)
        rates = sorted(float(rate[-1]) for rate in _rates(sample, accepted))
        # The same draw as in `_bootstrapped_count`.
        bootstrap = rates[math.ceil(sample.confidence * len(rates) - 1e-9) - 1] if rates else None
    return Bound(
        confidence=sample.confidence,
        trials=n,
        unit=None if known is None else known.unit,
        units=None if known is None else len(np.unique(np.concatenate(known.numbers))),
        effective_trials=n / design,
        independent=independent,
        effective=effective,
        bootstrap=bootstrap,
        upper=max(bound for bound in (independent, effective, bootstrap) if bound is not None),
        binding=binding,
    )
