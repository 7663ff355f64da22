"""Optimality of the attacks of a run: how near each comes to the best of all that have the same access to a profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.norms import Norm
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.plan import ADAPTIVE, GOALS, Goal, Knowledge
from toolkit.audit.replaying.replay import Replay, own_norm
from toolkit.audit.replaying.sanity import Outcome
from toolkit.pixels import Bools, Float
from toolkit.profiles.profile import Profile
from toolkit.statistics.optimality import envelope, optimality


@dataclass(frozen=True)
class Optimality:
    """The optimality of one attack on a profile that it knows or queries, in its own norm.

    `value` compares its robustness curve with the envelope of all attacks of the run with this knowledge of this
    profile. It is 1 if none of them needs less on any pair, and None if no attack succeeds.
    """

    attack: str
    knowledge: Knowledge
    profile: str
    goal: Goal
    norm: Norm
    value: float | None


def run_optimality(
    outcomes: Sequence[Outcome], clean: dict[Profile, CleanRun], genuine: NDArray[np.bool_]
) -> list[Optimality]:
    """Measure every attack of the run that adapts to the profile, for each goal that has pairs.

    Attacks that change only what a person can wear are left out, because their norms mean nothing. So are those that
    minimize something that results do not have, like the number of pixels.

    Args:
        outcomes: the results of all scenarios.
        clean: the clean run of each deployed profile.
        genuine: (n,), whether each pair is of one person.
    """
    measured = [(s, r) for s, r in outcomes if s.knowledge in ADAPTIVE and not s.attack.traits.masked]
    results = []
    for s, replayed in measured:
        traits, norm = s.attack.traits, own_norm(s.attack.traits)
        if norm is None:
            continue
        beside = [r for other, r in measured if (other.profile, other.knowledge) == (s.profile, s.knowledge)]
        for goal, of_goal in zip(GOALS, (genuine, ~genuine), strict=True):
            pairs = of_goal & clean[s.profile].eligible
            if of_goal.any():
                best = envelope([_needed(norm, r, pairs) for r in beside])
                value = optimality(_needed(norm, replayed, pairs), best, traits.epsilon)
                results.append(Optimality(s.attack.name, s.knowledge, s.profile.name, goal, norm, value))
    return results


def _needed(norm: Norm, replayed: Replay, pairs: Bools) -> Float:
    """The norms of some pairs; infinite where the attack failed."""
    return np.where(replayed.success, replayed.norms(norm), np.inf)[pairs]
