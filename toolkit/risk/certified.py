"""Certificates of a deployed profile, read against the budget of a policy.

A certified pair cannot fall to any attack within its radius. This is evidence that no stronger attack takes away, so it
stands in for attacks that were not run or are too weak. It says nothing of what is worn, which has no budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.results.assessment import Target
from toolkit.audit.results.certified import certified_radii
from toolkit.audit.results.outcomes import Run
from toolkit.pixels import Bools
from toolkit.risk.policy import Policy, Required
from toolkit.statistics.intervals import Rate


@dataclass(frozen=True)
class Certified:
    """What the certificates of one deployed profile say about a policy's budget, for one goal.

    Attributes:
        within: distinct eligible pairs whose certified radius covers the whole budget, over distinct eligible pairs.
        radius: the L2 radius that covers the budget.
        reach: the largest certified radius of the eligible pairs.
    """

    within: Rate
    radius: float
    reach: float

    @property
    def uncertified(self) -> Rate:
        """The eligible pairs that an attack may get, for all that the certificates say, over eligible pairs."""
        return Rate(self.within.trials - self.within.successes, self.within.trials)

    def shows(self, required: Required) -> bool:
        """Whether the certificates alone show what the policy asks for."""
        return self.within.trials > 0 and self.uncertified.upper_bound() <= required.max_asr


def covering_radius(policy: Policy, target: Target) -> float:
    """The L2 radius, in units of the pixel range, of the smallest ball that contains the budget of a policy."""
    size = float((3 * target.height * target.width) ** 0.5)
    return {"rms": policy.budget * size / 255, "l2": policy.budget, "linf": policy.budget * size}[policy.norm]


def certified(run: Run, policy: Policy, profile: str, pairs: Bools, numbers: NDArray[np.intp]) -> Certified | None:
    """Read the certificates of one profile.

    Args:
        run: the run.
        policy: the policy.
        profile: name of the profile.
        pairs: (n,), the pairs of the goal.
        numbers: (n,), the number of each pair, which its copies share. A pair counts if all its copies are certified.

    Returns:
        None if the profile, as it is deployed, has no certificates.
    """
    radii = certified_radii(run, profile)
    if radii is None:
        return None
    mine = next((o for o in run.outcomes if o.profile == profile), None)
    eligible = pairs if mine is None else mine.eligible & pairs
    radius = covering_radius(policy, run.assessment.target)
    reach = float(radii[eligible].max(initial=0.0))
    trials = len(np.unique(numbers[eligible]))
    open_to_attack = len(np.unique(numbers[eligible & (radii < radius)]))
    return Certified(Rate(trials - open_to_attack, trials), radius, reach)
