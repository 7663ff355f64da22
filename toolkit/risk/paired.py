"""Paired comparison of two runs: the same scenarios on the pairs that both runs have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.plan import Goal
from toolkit.audit.results.assessment import ScenarioResult, declared_attack
from toolkit.audit.results.outcomes import PairOutcomes, Run
from toolkit.pixels import Bools
from toolkit.risk.policy import Policy
from toolkit.risk.worst import finding_id, goal_pairs, successes_within
from toolkit.statistics.tests import holm, mcnemar


@dataclass(frozen=True)
class Difference:
    """The change of one scenario or clean error between two runs, on pairs that are eligible in both.

    Attributes:
        id: id of the finding; for a clean error, ``clean/PROFILE/fnmr`` or ``fmr``.
        profile: the deployed profile.
        pairs: number of pairs that are eligible in both runs.
        only_first, only_second: pairs on which the attack succeeded (or the clean decision was wrong) in only one run.
        p_value: p value of the exact McNemar test.
        p_adjusted: p value with Holm's correction over all comparisons.
    """

    id: str
    profile: str
    pairs: int
    only_first: int
    only_second: int
    p_value: float
    p_adjusted: float


def differences(first: Run, second: Run, policy: Policy) -> tuple[Difference, ...]:
    """Compare the scenarios and clean errors that both runs have, in the order of the first run.

    Args:
        first: one run.
        second: the other run.
        policy: only successes within its budget count.
    """
    rows = common_pairs(first, second)
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
    ids = {finding_id(s, s.goal) for s in second.assessment.scenarios}
    return [
        (_key(s), finding_id(s, s.goal), s.goal) for s in first.assessment.scenarios if finding_id(s, s.goal) in ids
    ]


def common_pairs(first: Run, second: Run) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows of the common pairs in the first run and in the second run. Pairs with different labels do not count."""
    mine, theirs = (list(zip(run.pairs, run.genuine.tolist(), strict=True)) for run in (first, second))
    place = {pair: i for i, pair in enumerate(theirs)}
    rows = [(i, place[pair]) for i, pair in enumerate(mine) if pair in place]
    table = np.array(rows, np.intp).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _side(run: Run, key: Key, goal: Goal, rows: NDArray[np.intp], policy: Policy) -> tuple[Bools, Bools]:
    """For each common pair: whether the attack succeeded within the budget, and whether the pair is eligible."""
    outcomes = next(o for o in run.outcomes if _key(o) == key)
    attack = declared_attack(run.assessment, outcomes.attack)
    success = successes_within(outcomes, policy, worn=attack.traits.masked)
    return success[rows], (outcomes.eligible & goal_pairs(run, goal))[rows]


def _clean(first: Run, second: Run, rows: Sequence[NDArray[np.intp]]) -> list[tuple[str, str, Bools, Bools, Bools]]:
    """The clean errors of the profiles that both runs have: (id, profile, pairs, wrong in first, wrong in second)."""
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
