"""Error rates and attack success by subgroup: the labels of pairs in the column `group` of their list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from toolkit.audit.clean.run import CleanRun
from toolkit.audit.replaying.sanity import Outcome
from toolkit.pixels import Bools
from toolkit.profiles.profile import Profile
from toolkit.statistics.equality import equal_rates
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import holm_of_known

# A group with fewer pairs is said to be too small. By the rule of three (Hanley 1983), even a group without an error
# could then have a rate of 10 %.
FEWEST = 30
Measure = Literal["fnmr", "fmr", "dodging", "impersonation"]


@dataclass(frozen=True)
class SubgroupRate:
    """The rate of one subgroup.

    Attributes:
        label: the subgroup.
        rate: errors, or pairs that fell, over the pairs that count.
        few: whether it has fewer pairs than `FEWEST`, so that its rate alone says little.
    """

    label: str
    rate: Rate
    few: bool


@dataclass(frozen=True)
class SubgroupComparison:
    """One rate of one profile by subgroup, with an exact test of equality.

    Attributes:
        profile: name of the profile.
        measure: `fnmr` or `fmr` on clean pairs, at the manifest's threshold; or the share of eligible pairs that fell
            to any attack of the run within the budget, by the attacker's goal.
        groups: the rates, in the order of labels. Subgroups without such pairs are left out.
        p_value: p value of `equal_rates`, which takes pairs as independent; None with fewer than two subgroups. Small
            subgroups count too, because the test is exact.
        p_adjusted: p value with Holm's correction over all comparisons of the run.
    """

    profile: str
    measure: Measure
    groups: tuple[SubgroupRate, ...]
    p_value: float | None
    p_adjusted: float | None


@dataclass(frozen=True)
class Subgroups:
    """All rates by subgroup.

    Attributes:
        budget: the largest RMS, in 1/255, of a success that counts. A worn perturbation counts at any size.
        fewest: see `FEWEST`.
        unlabeled: number of pairs without a label, which count in no subgroup.
        comparisons: the rates of each profile.
    """

    budget: float
    fewest: int
    unlabeled: int
    comparisons: tuple[SubgroupComparison, ...]


def subgroups_of(
    labels: Sequence[str], genuine: Bools, clean: Mapping[Profile, CleanRun], outcomes: Sequence[Outcome], budget: float
) -> Subgroups | None:
    """Compute all rates by subgroup; None if no pair has a label.

    Args:
        labels: the subgroups of n pairs; "" without one.
        genuine: (n,), whether each pair is of one person.
        clean: the clean run of each profile of the run.
        outcomes: the results of all scenarios.
        budget: see `Subgroups`.
    """
    if not any(labels):
        return None
    found: list[SubgroupComparison] = []
    for profile, run in clean.items():
        rows: list[tuple[Measure, Bools, Bools]] = [("fnmr", genuine, ~run.correct), ("fmr", ~genuine, ~run.correct)]
        mine = [(s, replay) for s, replay in outcomes if s.profile == profile]
        if mine:
            fell = np.any([r.success & (s.attack.traits.masked | (r.rms <= budget)) for s, r in mine], axis=0)
            rows.append(("dodging", genuine & run.eligible, fell))
            rows.append(("impersonation", ~genuine & run.eligible, fell))
        for measure, counts, bad in rows:
            found.append(_comparison(profile.name, measure, subgroup_rates(labels, counts, bad)))
    adjusted = holm_of_known([one.p_value for one in found])
    comparisons = tuple(replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True))
    return Subgroups(budget, FEWEST, sum(not label for label in labels), comparisons)


def subgroup_rates(labels: Sequence[str], counts: Bools, bad: Bools) -> tuple[SubgroupRate, ...]:
    """The rate of each subgroup that has pairs which count.

    Args:
        labels: the subgroups of n pairs; "" without one.
        counts: (n,), whether the pair counts.
        bad: (n,), whether it is an error, or fell.
    """
    of = np.array(labels, str)
    groups = []
    for label in sorted({*labels} - {""}):
        here = counts & (of == label)
        if here.any():
            rate = Rate(int((bad & here).sum()), int(here.sum()))
            groups.append(SubgroupRate(label, rate, rate.trials < FEWEST))
    return tuple(groups)


def _comparison(profile: str, measure: Measure, groups: tuple[SubgroupRate, ...]) -> SubgroupComparison:
    p_value = equal_rates([group.rate for group in groups]) if len(groups) > 1 else None
    return SubgroupComparison(profile, measure, groups, p_value, None)
