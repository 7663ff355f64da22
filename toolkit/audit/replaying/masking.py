"""Masking: attacks without the gradients of a profile that succeed where attacks with them fail.

An attacker with gradients can do everything that others can. If others do better on the same pairs, then the gradients
are masked (Athalye et al. 2018, arXiv:1802.00420, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.attacks.base import Attack, is_trained
from toolkit.attacks.norms import Norm
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.plan import ADAPTIVE
from toolkit.audit.replaying.replay import Replay, own_norm
from toolkit.audit.replaying.sanity import Check, Outcome
from toolkit.pixels import Bools, Float
from toolkit.profiles.profile import Profile
from toolkit.statistics.tests import LEVEL, mcnemar_worse

# The relative accuracy of norms: a perturbation at a bound is within it.
_SLACK = 1e-5


def check_masking(outcomes: Sequence[Outcome], clean: dict[Profile, CleanRun]) -> list[Check]:
    """Compare every attack that does not use a profile's gradients with all that do, pair by pair.

    An attack in a ball is compared by what falls within the ball. Any other attack is compared by the norms that it
    needs. A failure counts against the gradients only where one of their attacks could have gone as far.

    Args:
        outcomes: the results of all scenarios.
        clean: the clean run of each deployed profile.
    """
    checks = []
    for profile in dict.fromkeys(s.profile for s, _ in outcomes):
        mine = [(s, r) for s, r in outcomes if s.profile == profile and not s.attack.traits.masked]
        white = [(s.attack, r) for s, r in mine if s.knowledge == "perfect" and s.attack.needs == "gradient"]
        white = [(attack, r) for attack, r in white if not is_trained(attack)]
        for s, replayed in mine if white else ():
            if s.knowledge in ADAPTIVE and s.attack.needs == "gradient":
                continue
            only, others = _compared(s.attack, replayed, white, clean[profile].eligible)
            knows = f"knowledge of {s.known.name}" if s.knowledge not in ADAPTIVE else "no gradients"
            checks.append(
                Check(
                    "masking",
                    f"{s.attack.name} on {profile.name}",
                    only <= others or mcnemar_worse(only, others) >= LEVEL,
                    f"with {knows}, it does better on {only} pairs; attacks with gradients do better on {others}",
                )
            )
    return checks


def _compared(
    attack: Attack, replayed: Replay, white: Sequence[tuple[Attack, Replay]], eligible: Bools
) -> tuple[int, int]:
    """Count the pairs on which only `attack` succeeds or needs less, and on which attacks with gradients do."""
    norm, bound = own_norm(attack.traits) or "l2", attack.traits.epsilon
    needed = _needed(norm, replayed, replayed.success & eligible)
    least = np.full(len(eligible), np.inf)
    reach = np.zeros(len(eligible))
    for other, result in white:
        # What an attack found against its own draws of a random profile, its gradients have led to.
        least = np.minimum(least, _needed(norm, result, (result.crafted | result.success) & eligible))
        reach = np.maximum(reach, _reach(norm, other, result))
    if bound is not None:
        within = bound * (1 + _SLACK)
        got, white_got = needed <= within, least <= within
        only, others = got & ~white_got, white_got & ~got
    else:
        only, others = needed * (1 + _SLACK) < least, least * (1 + _SLACK) < needed
    return int((only & (needed <= reach * (1 + _SLACK))).sum()), int(others.sum())


def _needed(norm: Norm, replayed: Replay, success: Bools) -> Float:
    """The norms of successes (n,); infinite for other pairs."""
    return np.where(success, replayed.norms(norm), np.inf)


def _reach(norm: Norm, attack: Attack, replayed: Replay) -> Float:
    """The largest norms (n,) up to which the attack should have found a success.

    An attack for the smallest norm, and one within a ball, answer for their own norm. An attack without a ball must
    find some success, so that it answers for every norm where it found none.
    """
    traits = attack.traits
    if traits.epsilon is not None:
        return np.full(len(replayed.l2), traits.epsilon if traits.norm == norm else 0.0)
    if traits.minimizes == norm:
        return np.full(len(replayed.l2), np.inf)
    # One step promises nothing: other checks ask what it does.
    return np.where(replayed.crafted | replayed.success, 0.0, np.inf) if traits.steps else np.zeros(len(replayed.l2))
