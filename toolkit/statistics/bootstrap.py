"""Intervals and bands of clean error rates by resampling people, not pairs.

Pairs of one person are not independent, so identities are resampled with replacement, as many as there are. A genuine
pair weighs as often as its identity was drawn, an impostor pair the product of both multiplicities (the subsets
bootstrap: Bolle, Ratha and Pankanti 2004). Where an error rate is zero every draw gives zero, which proves nothing:
use `Rate.clopper_pearson` there.
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

# Fewer false matches than this leave nothing to read a curve from (rule of three).
_FEWEST_MATCHES = 3


@dataclass(frozen=True)
class Det:
    """FNMR against FMR, with a pointwise band.

    Attributes:
        unit: what was resampled: people, or pairs where nobody is named, whose band is too narrow where people repeat.
        confidence: two-sided, at each FMR by itself.
        fmr: rising, in (0, 1).
        fnmr, low, high: one for each `fmr`.
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
    """Percentile interval of an error rate. Draws that leave no pair of the kind asked for are left out.

    Args:
        distances: (n,), finite.
        genuine: (n,) bool.
        probe_identity: (n,) integers that name people.
        reference_identity: (n,) the same; equal to the probe's exactly in genuine pairs.
        threshold: "same" is below it.
        statistic: `fmr`, `fnmr` or `accuracy`.
        rng: the only source of randomness.
        draws: number of resamples.
        confidence: two-sided.

    Raises:
        InputError: the arrays do not fit together, or identities contradict labels.
        InsufficientError: no pair of the kind asked for.
    """
    values, labels = check_pairs(distances, genuine, both=False)
    if statistic not in get_args(Statistic) or draws < 1 or not 0 < confidence < 1:
        raise InputError(f"cannot bootstrap {statistic!r} with {draws} draws at confidence {confidence}")
    kind = {"fmr": ~labels, "fnmr": labels, "accuracy": np.ones_like(labels)}[statistic]
    weights = _people_weights(labels, probe_identity, reference_identity, rng, draws)
    if not kind.any():
        raise InsufficientError(f"no pair is left to bootstrap the {statistic} on")
    counted = ((values < threshold) == labels) == (statistic == "accuracy")
    found = [weight[kind] @ counted[kind] / total for weight in weights if (total := weight[kind].sum())]
    if not found:
        raise InsufficientError(f"too few people to bootstrap the {statistic} on")
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
    """The detection error trade-off (ISO/IEC 19795-1), read at FMRs that the impostors can show.

    At each FMR the threshold is the largest with at most that FMR, within each draw anew: the band is of the FNMR at a
    fixed FMR, and holds the uncertainty of the threshold as well. Where no genuine pair is missed, the band ends at the
    exact bound of that.

    Args:
        distances: (n,), finite.
        genuine: (n,) bool.
        people: (n,) and (n,) integers that name who is in probe and reference, or None where that is not known.
        rng: the only source of randomness.
        points: FMRs, evenly spaced on a logarithmic scale from 3 false matches to half of the impostors.
        draws: number of resamples.
        confidence: two-sided, pointwise.

    Returns:
        The curve, or None with fewer than six impostor pairs or no genuine one.

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
    # Entry i: how many distances lie below the i-th, so how many a threshold there accepts. The last accepts all.
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
    """Weighted FNMR at the largest threshold that has at most each FMR.

    Pairs are in the order of their distances, and `below` are their numbers that each threshold accepts.
    """
    impostor, genuine = np.where(labels, 0.0, weight), np.where(labels, weight, 0.0)
    accepted = np.append(0.0, np.cumsum(impostor))[below] / impostor.sum()
    missed = 1 - np.append(0.0, np.cumsum(genuine))[below] / genuine.sum()
    # 1e-9: 0.01 * 300 must count as 3 whatever its last bit says.
    return np.asarray(missed[np.searchsorted(accepted, fmr + 1e-9, side="right") - 1])


def _people_weights(
    labels: Bools, probe_identity: Identities, reference_identity: Identities, rng: np.random.Generator, draws: int
) -> Iterator[Floats]:
    probes, references = np.asarray(probe_identity), np.asarray(reference_identity)
    if probes.shape != labels.shape or references.shape != labels.shape:
        raise InputError(f"identities {probes.shape} and {references.shape} must be one per pair, {labels.shape}")
    contradictory = np.count_nonzero((probes == references) != labels)
    if contradictory:
        raise InputError(f"{contradictory} pairs have identities that contradict their labels")
    people, index = np.unique(np.concatenate([probes, references]), return_inverse=True)
    first, second = index[: len(labels)], index[len(labels) :]

    def drawn() -> Iterator[Floats]:
        for _ in range(draws):
            times = np.bincount(rng.integers(len(people), size=len(people)), minlength=len(people))
            yield np.where(labels, times[first], times[first] * times[second]).astype(np.float64)

    return drawn()


def _pair_weights(labels: Bools, rng: np.random.Generator, draws: int) -> Iterator[Floats]:
    """Pairs of each kind resampled by themselves, as many as there are."""
    for _ in range(draws):
        weight = np.zeros(len(labels))
        for kind in (labels, ~labels):
            places = np.flatnonzero(kind)
            weight[places] = np.bincount(rng.integers(len(places), size=len(places)), minlength=len(places))
        yield weight
