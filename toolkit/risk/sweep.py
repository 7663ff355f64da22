"""Stricter thresholds as a defense (future work in section 6 of the paper): their cost, and the attacks they stop.

Each threshold needs an audit of its own, by attackers who know it. Probes for one threshold say nothing about a
stricter one, because a minimal perturbation ends just past the threshold that it was crafted for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.audit.options import AuditOptions
from toolkit.audit.plan import ADAPTIVE, Goal
from toolkit.audit.results.outcomes import Run
from toolkit.audit.run import audit_at_thresholds
from toolkit.errors import InputError, UsageError
from toolkit.progress import SILENT, Progress
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import find_manifest, with_threshold

# Default thresholds, as shares of the manifest's threshold.
_STRICTER = (1.0, 0.9, 0.8, 0.7, 0.6)


@dataclass(frozen=True)
class Strongest:
    """The attack with the most successes within the budget, among attacks that know or query the profile.

    Attributes:
        goal: the attacker's goal.
        attack: name of the attack.
        within: successes within the budget, over eligible pairs.
        asr: successes of any size, over eligible pairs.
        median_rms: median RMS of all successes, in 1/255; None without a success.
    """

    goal: Goal
    attack: str
    within: Rate
    asr: Rate
    median_rms: float | None


@dataclass(frozen=True)
class SweepRow:
    """One profile at one threshold, from the run `run`. `strongest` omits goals without adaptive attacks."""

    threshold: float
    run: str
    profile: str
    fnmr: Rate
    fmr: Rate
    strongest: tuple[Strongest, ...]


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep. For each profile, the rows go from the loosest to the strictest threshold."""

    model: str
    metric: str
    budget: str
    pairs_source: str
    rows: tuple[SweepRow, ...]


def sweep(runs: Sequence[Run], policy: Policy) -> Sweep:
    """Combine audits of one verifier at several thresholds.

    Args:
        runs: one run for each threshold.
        policy: only successes within its budget count.

    Raises:
        InputError: the runs have different verifiers or pairs.
    """
    first = runs[0].assessment
    for run in runs[1:]:
        if (run.assessment.target.model_sha256, run.pairs) != (first.target.model_sha256, runs[0].pairs):
            raise InputError(f"run {run.assessment.run} and run {first.run} have different verifiers or pairs")
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


def sweep_thresholds(
    options: AuditOptions, thresholds: Sequence[float] | None = None, progress: Progress = SILENT
) -> Sweep:
    """Run one audit at each threshold, by attackers who know the threshold.

    Args:
        options: options of the audits. `run` is the parent folder of the runs; `policy` gives the budget.
        thresholds: the thresholds. Default: 100, 90, 80, 70 and 60 % of the manifest's threshold.
        progress: shows every stage.

    Raises:
        UsageError: the options have a threshold, or a threshold is not between 0 and the largest distance.
        SixpixelsError: see `audit_verifier`.
    """
    if options.threshold is not None:
        raise UsageError("a sweep has several thresholds; give --thresholds instead of --threshold")
    policy, manifest = find_policy(options.policy), find_manifest(options.model)
    chosen = [manifest.decision.threshold * share for share in _STRICTER] if thresholds is None else thresholds
    for threshold in chosen:
        with_threshold(manifest, threshold)  # fail on an invalid threshold before the long run
    return sweep(audit_at_thresholds(options, list(dict.fromkeys(chosen)), progress), policy)
