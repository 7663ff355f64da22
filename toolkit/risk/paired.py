"""Paired comparison of two runs: the same scenarios on the pairs that both runs have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.plan import Goal
from toolkit.audit.results.outcomes import Run
from toolkit.pixels import Bools
from toolkit.risk.policy import Policy
from toolkit.risk.worst import fallen, finding_id
from toolkit.statistics.tests import holm, mcnemar

Rows = tuple[NDArray[np.intp], NDArray[np.intp]]


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


@dataclass(frozen=True)
class Change:
    """What is compared: its name and profile, the n common pairs that count, and which are bad in each run.

    A pair is bad if it fell, or if the clean decision was wrong.
    """

    name: str
    profile: str
    both: Bools
    first: Bools
    second: Bools

    @property
    def pairs(self) -> int:
        """Number of pairs that count."""
        return int(self.both.sum())

    @property
    def only_first(self) -> int:
        """Pairs that are bad in the first run alone."""
        return int((self.both & self.first & ~self.second).sum())

    @property
    def only_second(self) -> int:
        """Pairs that are bad in the second run alone."""
        return int((self.both & self.second & ~self.first).sum())


def differences(first: Run, second: Run, policy: Policy) -> tuple[Difference, ...]:
    """Compare the scenarios and clean errors that both runs have, in the order of the first run.

    Args:
        first: one run.
        second: the other run.
        policy: only successes within its budget count.
    """
    runs, ids = (first, second), {finding_id(s, s.goal) for s in second.assessment.scenarios}
    rows = common_pairs(first, second)
    named = [(finding_id(s, s.goal), s) for s in first.assessment.scenarios]
    changes = [attack_change(name, runs, rows, policy, s.profile, s.goal, {name}) for name, s in named if name in ids]
    changes += clean_changes(runs, rows)
    p_values = [mcnemar(change.only_first, change.only_second) for change in changes]
    return tuple(
        Difference(c.name, c.profile, c.pairs, c.only_first, c.only_second, p_value, float(adjusted))
        for c, p_value, adjusted in zip(changes, p_values, holm(p_values), strict=True)
    )


def common_pairs(first: Run, second: Run) -> Rows:
    """The rows of the common pairs in the first run and in the second run. Pairs with different labels do not count."""
    mine, theirs = (list(zip(run.pairs, run.genuine.tolist(), strict=True)) for run in (first, second))
    place = {pair: i for i, pair in enumerate(theirs)}
    rows = [(i, place[pair]) for i, pair in enumerate(mine) if pair in place]
    table = np.array(rows, np.intp).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def attack_change(
    name: str, runs: tuple[Run, Run], rows: Rows, policy: Policy, profile: str, goal: Goal, findings: Collection[str]
) -> Change:
    """Compare what fell to any of some findings in two runs, on the pairs that are eligible in both.

    Args:
        name: the name of the change.
        runs: the two runs.
        rows: their common pairs.
        policy: the policy, whose budget counts.
        profile: the deployed profile.
        goal: the attacker's goal.
        findings: ids of findings that both runs have.
    """
    sides = [fallen(run, policy, profile, goal, findings)[:2] for run in runs]
    (eligible, fell), (still, then) = ((e[of], f[of]) for (e, f), of in zip(sides, rows, strict=True))
    return Change(name, profile, eligible & still, fell, then)


def clean_changes(runs: tuple[Run, Run], rows: Rows) -> list[Change]:
    """Compare the clean errors of the profiles that two runs have, in the order of the first run."""
    first, second = runs
    genuine = first.genuine[rows[0]]
    others = {c.profile: c for c in second.clean}
    return [
        Change(
            f"clean/{c.profile}/{kind}", c.profile, of_kind, ~c.correct[rows[0]], ~others[c.profile].correct[rows[1]]
        )
        for c in first.clean
        if c.profile in others
        for kind, of_kind in (("fnmr", genuine), ("fmr", ~genuine))
    ]
