"""Confidence intervals and bands of clean error rates, from resampling people instead of pairs.

Pairs of one person are not independent. Each draw therefore resamples all identities with replacement. The weight of a
genuine pair is how often its identity was drawn. The weight of an impostor pair is the product of how often its two
identities were drawn (the subsets bootstrap: Bolle, Ratha and Pankanti 2004). If an error rate is zero, every draw
gives zero, which proves nothing. Use `Rate.clopper_pearson` in that case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import Bools, Floats, check_pairs

Statistic = Literal["fmr", "fnmr", "accuracy"]
Identities = NDArray[np.int64]

# A point of the curve with fewer false matches than this is not reliable (rule of three).
_FEWEST_MATCHES = 3


@dataclass(frozen=True)
class Det:
    """A detection error trade-off curve (FNMR as a function of FMR) with a pointwise confidence band.

    Attributes:
        unit: what was resampled: people, or pairs if identities are unknown. A band from pairs is too narrow if people
            occur in several pairs.
        confidence: the two-sided confidence at each single FMR.
        fmr: rising values in (0, 1).
        fnmr, low, high: the FNMR and the limits of its band, one value for each `fmr`.
    """

    unit: Literal["people", "pairs"]
    confidence: float
    fmr: tuple[float, ...]
    fnmr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def identity_bootstrap(
    distances: Floats,
    genuine: Bools,
    probe_identity: Identities,
    reference_identity: Identities,
    *,
    threshold: float,
    statistic: Statistic,
    rng: np.random.Generator,
    draws: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the bootstrap percentile interval of an error rate or of the accuracy.

    Draws without any pair of the needed kind are skipped.

    Args:
        distances: (n,) float, finite.
        genuine: (n,) bool, True for pairs of one person.
        probe_identity: (n,) integers, the person in each probe.
        reference_identity: (n,) integers, the person in each reference. It must equal the probe's identity in genuine
            pairs and differ from it in impostor pairs.
        threshold: a pair is judged "same" if its distance is below the threshold.
        statistic: `fmr`, `fnmr` or `accuracy`.
        rng: the only source of randomness.
        draws: the number of resamples.
        confidence: the two-sided confidence, between 0 and 1.

    Raises:
        InputError: the arrays do not fit together, identities contradict labels, or an argument is not valid.
        InsufficientError: there is no pair of the needed kind.
    """
    values, labels = check_pairs(distances, genuine, both=False)
    if statistic not in get_args(Statistic) or draws < 1 or not 0 < confidence < 1:
        raise InputError(
            f"cannot bootstrap {statistic!r} with {draws} draws at confidence {confidence}; choose fmr, fnmr or "
            "accuracy, at least 1 draw, and a confidence between 0 and 1"
        )
    kind = {"fmr": ~labels, "fnmr": labels, "accuracy": np.ones_like(labels)}[statistic]
    weights = _people_weights(labels, probe_identity, reference_identity, rng, draws)
    if not kind.any():
        raise InsufficientError(f"there is no pair to bootstrap the {statistic} on")
    counted = ((values < threshold) == labels) == (statistic == "accuracy")
    found = [weight[kind] @ counted[kind] / total for weight in weights if (total := weight[kind].sum())]
    if not found:
        raise InsufficientError(f"there are too few people to bootstrap the {statistic}")
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def det_band(
    distances: Floats,
    genuine: Bools,
    people: tuple[Identities, Identities] | None,
    *,
    rng: np.random.Generator,
    points: int = 25,
    draws: int = 500,
    confidence: float = 0.95,
) -> Det | None:
    """Return the detection error trade-off curve (ISO/IEC 19795-1) with a bootstrap band.

    At each FMR the threshold is the largest one with at most that FMR. Each draw chooses its own thresholds. The band
    is therefore a band of the FNMR at a fixed FMR, and it includes the uncertainty of the threshold. Where the FNMR is
    zero, the upper limit of the band is at least the exact upper bound for zero errors.

    Args:
        distances: (n,) float, finite.
        genuine: (n,) bool, True for pairs of one person.
        people: two arrays (n,) of integers, the person in each probe and in each reference; None if identities are
            unknown, in which case pairs are resampled.
        rng: the only source of randomness.
        points: the number of FMRs, evenly spaced on a logarithmic scale from 3 false matches to half of the impostors.
        draws: the number of resamples.
        confidence: the two-sided pointwise confidence.

    Returns:
        The curve; None with fewer than six impostor pairs, without genuine pairs, or without a usable draw.

    Raises:
        InputError: the arrays do not fit together, or identities contradict labels.
    """
    values, labels = check_pairs(distances, genuine, both=False)
    impostors = int(np.count_nonzero(~labels))
    if impostors < 2 * _FEWEST_MATCHES or not labels.any():
        return None
    fmr = np.geomspace(_FEWEST_MATCHES / impostors, 0.5, points)
    order = np.argsort(values, kind="stable")
    rising, of_rising = values[order], labels[order]
    # Entry i is how many pairs a threshold at the i-th distance accepts. The last threshold (infinity) accepts all.
    below = np.searchsorted(rising, np.append(rising, np.inf), side="left")
    curve = _fnmr_at(fmr, below, of_rising, np.ones(len(values)))
    weights = (
        _pair_weights(labels, rng, draws)
        if people is None
        else _people_weights(labels, people[0], people[1], rng, draws)
    )
    found = [
        _fnmr_at(fmr, below, of_rising, weight[order])
        for weight in weights
        if weight[labels].any() and weight[~labels].any()
    ]
    if not found:
        return None
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    none_missed = Rate(0, len(values) - impostors).clopper_pearson(confidence)[1]
    high = np.where(curve > 0, high, np.maximum(high, none_missed))
    lists = (tuple(map(float, values)) for values in (fmr, curve, low, high))
    return Det("pairs" if people is None else "people", confidence, *lists)


def _fnmr_at(fmr: Floats, below: NDArray[np.intp], labels: Bools, weight: Floats) -> Floats:
    """Return the weighted FNMR at the largest threshold with at most each FMR.

    Args:
        fmr: (p,) the FMRs.
        below: (n + 1,) how many pairs each threshold accepts.
        labels: (n,) bool, True for genuine pairs, in the order of their distances.
        weight: (n,) the weights of the pairs, in the same order.
    """
    impostor, genuine = np.where(labels, 0.0, weight), np.where(labels, weight, 0.0)
    accepted = np.append(0.0, np.cumsum(impostor))[below] / impostor.sum()
    missed = 1 - np.append(0.0, np.cumsum(genuine))[below] / genuine.sum()
    # The tolerance of 1e-9 absorbs rounding errors: 0.01 * 300 must count as 3.
    return np.asarray(missed[np.searchsorted(accepted, fmr + 1e-9, side="right") - 1])


def _people_weights(
    labels: Bools, probe_identity: Identities, reference_identity: Identities, rng: np.random.Generator, draws: int
) -> Iterator[Floats]:
    """Check the identities, and return an iterator over weights of pairs (n,), one array for each draw of people."""
    probes, references = np.asarray(probe_identity), np.asarray(reference_identity)
    if probes.shape != labels.shape or references.shape != labels.shape:
        raise InputError(
            f"identities have shapes {probes.shape} and {references.shape}; there must be one per pair, {labels.shape}"
        )
    contradictory = np.count_nonzero((probes == references) != labels)
    if contradictory:
        raise InputError(f"{contradictory} pairs have identities that contradict their labels")
    people, index = np.unique(np.concatenate([probes, references]), return_inverse=True)
    first, second = index[: len(labels)], index[len(labels) :]

    def drawn() -> Iterator[Floats]:
        for times in people_draws(len(people), rng, draws):
            yield np.where(labels, times[first], times[first] * times[second]).astype(np.float64)

    return drawn()


def people_draws(people: int, rng: np.random.Generator, draws: int) -> Iterator[NDArray[np.int64]]:
    """Yield for each draw how often each of the people was drawn, (people,)."""
    for _ in range(draws):
        yield np.bincount(rng.integers(people, size=people), minlength=people)


def _pair_weights(labels: Bools, rng: np.random.Generator, draws: int) -> Iterator[Floats]:
    """Yield weights of pairs (n,). Genuine and impostor pairs are resampled separately, each to its own number."""
    for _ in range(draws):
        weight = np.zeros(len(labels))
        for kind in (labels, ~labels):
            places = np.flatnonzero(kind)
            weight[places] = np.bincount(rng.integers(len(places), size=len(places)), minlength=len(places))
        yield weight
