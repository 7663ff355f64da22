"""Two runs pair by pair: the same scenarios on the pairs that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import toolkit.attacks
from toolkit.attacks.base import Bools
from toolkit.audit.assessment import ScenarioResult
from toolkit.audit.outcomes import PairOutcomes, Run
from toolkit.audit.plan import Goal
from toolkit.registry import discover
from toolkit.risk.policy import Policy
from toolkit.risk.rate import finding_id, goal_pairs, successes_within
from toolkit.statistics.tests import holm, mcnemar


@dataclass(frozen=True)
class Difference:
    """What changed between two runs in one scenario or one clean error, on the pairs that count in both.

    Attributes:
        id: of the finding; of a clean error, ``clean/PROFILE/fnmr`` or ``fmr``.
        profile: that is deployed.
        pairs: that count in both.
        only_first, only_second: pairs that fell (or were decided wrongly) in one run alone.
        p_value: of exact McNemar.
        p_adjusted: by Holm over everything that is compared.
    """

    id: str
    profile: str
    pairs: int
    only_first: int
    only_second: int
    p_value: float
    p_adjusted: float


def differences(first: Run, second: Run, policy: Policy) -> tuple[Difference, ...]:
    """Compare what both runs have, in the order of the first; empty where they have no pair in common."""
    rows = _common(first, second)
    found = []
    for key, name, goal in _scenarios(first, second):
        sides = [_side(run, key, goal, place, policy) for run, place in zip((first, second), rows, strict=True)]
        both = sides[0][1] & sides[1][1]
        found.append((name, key[2], both, sides[0][0], sides[1][0]))
    found += _clean(first, second, rows)
    counts = [(name, profile, int(both.sum()), *_discordant(both, a, b)) for name, profile, both, a, b in found]
    p_values = [mcnemar(only_first, only_second) for *_, only_first, only_second in counts]
    adjusted = holm(p_values)
    return tuple(Difference(*c, p, float(q)) for c, p, q in zip(counts, p_values, adjusted, strict=True))


Key = tuple[str, str, str]


def _key(of: ScenarioResult | PairOutcomes) -> Key:
    return of.attack, of.known, of.profile


def _scenarios(first: Run, second: Run) -> list[tuple[Key, str, Goal]]:
    ids = {finding_id(s) for s in second.assessment.scenarios}
    return [(_key(s), finding_id(s), s.goal) for s in first.assessment.scenarios if finding_id(s) in ids]


def _common(first: Run, second: Run) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places of the common pairs in both runs, where they are of the same kind."""
    mine, theirs = (list(zip(run.pairs, run.genuine.tolist(), strict=True)) for run in (first, second))
    place = {pair: i for i, pair in enumerate(theirs)}
    rows = [(i, place[pair]) for i, pair in enumerate(mine) if pair in place]
    table = np.array(rows, np.intp).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _side(run: Run, key: Key, goal: Goal, rows: NDArray[np.intp], policy: Policy) -> tuple[Bools, Bools]:
    """Successes within the budget, and pairs that count, of the common pairs."""
    outcomes = next(o for o in run.outcomes if _key(o) == key)
    worn = bool(getattr(discover(toolkit.attacks, "ATTACK").get(outcomes.attack), "masked", False))
    success = successes_within(outcomes, policy, worn=worn)
    return success[rows], (outcomes.eligible & goal_pairs(run, goal))[rows]


def _clean(first: Run, second: Run, rows: Sequence[NDArray[np.intp]]) -> list[tuple[str, str, Bools, Bools, Bools]]:
    """Clean errors of the profiles that both runs have."""
    kinds = {"fnmr": first.genuine[rows[0]], "fmr": ~first.genuine[rows[0]]}
    others = {c.profile: c for c in second.clean}
    return [
        (f"clean/{c.profile}/{kind}", c.profile, of_kind, ~c.correct[rows[0]], ~others[c.profile].correct[rows[1]])
        for c in first.clean
        if c.profile in others
        for kind, of_kind in kinds.items()
    ]


def _discordant(both: Bools, first: Bools, second: Bools) -> tuple[int, int]:
    return int((both & first & ~second).sum()), int((both & second & ~first).sum())
