"""The evidence of a finished run on each of its profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.plan import ADAPTIVE
from toolkit.audit.results.assessment import declared_attack
from toolkit.audit.results.certified import certified_radii
from toolkit.audit.results.outcomes import Run
from toolkit.audit.suites import BUDGET
from toolkit.errors import InputError
from toolkit.pixels import Bools, Float
from toolkit.statistics.intervals import Rate

# The profile of the bare verifier.
BARE = "none"


@dataclass(frozen=True)
class Candidate:
    """The evidence on one profile of a run with n pairs.

    Attributes:
        profile: name of the profile.
        fnmr: clean FNMR at the manifest's threshold.
        fmr: clean FMR at the manifest's threshold.
        eligible: (n,), whether the deployed verifier decided the pair correctly before the attack.
        successes: by name of each attack that knows the profile: (n,), whether it succeeded on the eligible pair.
        norms: (n,), the smallest RMS, in 1/255, of these successes; infinite without one. Without any attack, what the
            certificates leave open falls at its radius.
        queries: (n,), the fewest queries of these successes by attacks that only query; infinite without one.
        most_queries: what these attacks may query for one pair; None if there are no such attacks.
        failed_checks: names of the run's sanity checks that failed on the profile.
        latency_ratio: see `Limits`; None if it was not measured.
        radii: (n,), the certified L2 radius of the pairs that the profile, as it is deployed, decides rightly, else 0;
            None without certificates.
        covered: (n,), whether that radius covers the whole budget.
    """

    profile: str
    fnmr: Rate
    fmr: Rate
    eligible: Bools
    successes: dict[str, Bools]
    norms: Float
    queries: Float
    most_queries: int | None = None
    failed_checks: tuple[str, ...] = ()
    latency_ratio: float | None = None
    radii: Float | None = None
    covered: Bools | None = None

    @property
    def fallen(self) -> Bools:
        """The pairs (n,) on which an attack that knows the profile succeeded.

        Where no attack was run, and certificates are all there is, whatever they do not cover may fall.
        """
        if not self.successes and self.covered is not None:
            return self.eligible & ~self.covered
        return np.any([np.zeros_like(self.eligible), *self.successes.values()], axis=0)


def candidates_of(run: Run, latency_ratios: dict[str, float], budget: float = BUDGET) -> list[Candidate]:
    """Collect the evidence on the profiles of a run.

    Args:
        run: the run.
        latency_ratios: latency ratios by profile; see `Limits`.
        budget: see `Limits`.

    Raises:
        InputError: two profiles have the same name.
    """
    found: list[Candidate] = []
    covering = budget / 255 * float(np.sqrt(3 * run.assessment.target.height * run.assessment.target.width))
    for clean in run.assessment.clean:
        name = clean.profile
        if any(c.profile == name for c in found):
            raise InputError(f"two profiles of the run are called {name!r}; rename one and audit again")
        mine = [o for o in run.outcomes if o.profile == name]
        knowing = [o for o in mine if o.knowledge in ADAPTIVE]
        traits = {o.attack: declared_attack(run.assessment, o.attack).traits for o in knowing}
        successes = {
            o.attack: o.within("rms", budget, worn=traits[o.attack].masked, tries=o.presented) for o in knowing
        }
        budgets = {attack: t.budget for attack, t in traits.items() if t.budget is not None}
        radii = certified_radii(run, name)
        covered = None if radii is None else radii >= covering
        norms = _least(len(run.genuine), [(o.rms, successes[o.attack]) for o in knowing])
        if not knowing and radii is not None and covered is not None:
            norms = np.where(covered, np.inf, radii * budget / covering)
        failed = [c.name for c in run.assessment.checks if not c.passed and f" on {c.about}".endswith(f" on {name}")]
        found.append(
            Candidate(
                profile=name,
                fnmr=clean.fnmr,
                fmr=clean.fmr,
                eligible=mine[0].eligible if mine else np.zeros(len(run.genuine), np.bool_),
                successes=successes,
                norms=norms,
                queries=_least(
                    len(run.genuine), [(o.queries, successes[o.attack]) for o in knowing if o.attack in budgets]
                ),
                most_queries=max(budgets.values(), default=None),
                failed_checks=tuple(dict.fromkeys(failed)),
                latency_ratio=latency_ratios.get(name),
                radii=radii,
                covered=covered,
            )
        )
    return found


def _least(pairs: int, found: Sequence[tuple[NDArray[Any], Bools]]) -> Float:
    """The smallest value of each pair (n,) among those of successes; infinite without one."""
    return np.min([np.full(pairs, np.inf), *(np.where(success, values, np.inf) for values, success in found)], axis=0)
