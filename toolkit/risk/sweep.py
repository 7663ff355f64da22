"""A stricter threshold as a defense (the paper's future work, section 6): what it costs and what it stops.

Every threshold has an audit of its own, whose attackers know it. Probes that were crafted for one threshold say nothing
about a stricter one: the smallest perturbation that succeeds ends just beyond the threshold that it was made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.audit.outcomes import Run
from toolkit.audit.plan import ADAPTIVE, Goal
from toolkit.errors import InputError
from toolkit.risk.policy import Policy
from toolkit.risk.rate import rate
from toolkit.statistics.intervals import Rate


@dataclass(frozen=True)
class Strongest:
    """The attack that gets most eligible pairs of a goal through within the budget, of those that know the profile.

    Attributes:
        goal: of the attack.
        attack: its name.
        within: successes within the budget over eligible pairs.
        asr: successes of any size.
        median_rms: of these, in 1/255; None where there is none.
    """

    goal: Goal
    attack: str
    within: Rate
    asr: Rate
    median_rms: float | None


@dataclass(frozen=True)
class SweepRow:
    """One profile at one threshold, from the run of that name; a goal that no adaptive attack tried is left out."""

    threshold: float
    run: str
    profile: str
    fnmr: Rate
    fmr: Rate
    strongest: tuple[Strongest, ...]


@dataclass(frozen=True)
class Sweep:
    """Thresholds from the loosest to the strictest, of each profile."""

    model: str
    metric: str
    budget: str
    pairs_source: str
    rows: tuple[SweepRow, ...]


def sweep(runs: Sequence[Run], policy: Policy) -> Sweep:
    """Put audits of one verifier at several thresholds together.

    Raises:
        InputError: the runs are of different verifiers or pairs.
    """
    first = runs[0].assessment
    for run in runs[1:]:
        if (run.assessment.target.model_sha256, run.pairs) != (first.target.model_sha256, runs[0].pairs):
            raise InputError(f"{run.assessment.run} has another verifier or other pairs than {first.run}")
    ordered = sorted(runs, key=lambda run: -run.assessment.target.threshold)
    rows = [
        SweepRow(a.target.threshold, a.run, c.profile, c.fnmr, c.fmr, _strongest(run, c.profile, policy))
        for place, c in enumerate(first.clean)
        for run in ordered
        for a, c in ((run.assessment, run.assessment.clean[place]),)
    ]
    return Sweep(first.target.name, first.target.metric, policy.within, first.pairs_source, tuple(rows))


def _strongest(run: Run, profile: str, policy: Policy) -> tuple[Strongest, ...]:
    scenarios = {(s.attack, s.known, s.profile, s.goal): s for s in run.assessment.scenarios}
    found: dict[Goal, Strongest] = {}
    for f in rate(run, policy).findings:
        s = scenarios[f.attack, f.known, f.profile, f.goal]
        if f.profile != profile or f.knowledge not in ADAPTIVE:
            continue
        best = found.get(f.goal)
        if best is None or (f.within.successes, s.asr.successes) > (best.within.successes, best.asr.successes):
            found[f.goal] = Strongest(f.goal, f.attack, f.within, s.asr, s.median_rms)
    return tuple(found[goal] for goal in sorted(found))
