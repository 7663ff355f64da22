"""Checks that the parts of a finished run name the same profiles, attacks and scenarios, and that its numbers can be.

Reports look names of one part up in another one. A run that was edited, or put together from two runs, must be refused
before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from toolkit.audit.plan import ADAPTIVE
from toolkit.audit.results.assessment import BUDGETS, Assessment
from toolkit.audit.results.subgroups import subgroup_rates
from toolkit.faces.corruptions import CORRUPTIONS, STRENGTHS
from toolkit.faces.pairs import MOST_SUBGROUPS
from toolkit.statistics.bootstrap import Det
from toolkit.text import LONGEST_NAME

if TYPE_CHECKING:
    from toolkit.audit.results.outcomes import Run

# Far above the norms of any perturbation, in any of our units.
_LARGEST_NORM = 1e6


def check_consistency(run: Run) -> None:
    """Check a run that was read from its files.

    Raises:
        ValueError: two of its parts contradict each other, or a number or name cannot be one of a run. The message says
            which.
    """
    a = run.assessment
    profiles = [name for name, _ in a.profiles]
    attacks = [name for name, _ in a.attacks]
    results = {(s.attack, s.knowledge, s.known, s.profile) for s in a.scenarios}
    _check_names(a, profiles, attacks)
    reported, stored = [c.profile for c in a.clean], [c.profile for c in run.clean]
    for where, found in (("clean of report.json", reported), ("profiles of results.sqlite", stored)):
        _check(len(set(found)) == len(found), f"{where} has a profile twice")
    _check(set(reported) == set(profiles), "clean of report.json has other profiles than the run")
    # Profiles that attackers know are run on the clean pairs too, also where they are not attacked themselves.
    _check(set(stored) >= set(profiles), "profiles of results.sqlite lacks a profile of the run")
    of_pairs = [(o.attack, o.knowledge, o.known, o.profile) for o in run.outcomes]
    _check(len(set(of_pairs)) == len(of_pairs), "results.sqlite has a scenario twice")
    _check(set(of_pairs) == results, "results.sqlite and report.json have different scenarios")
    for attack, knowledge, known, profile in results:
        _check(attack in attacks, f"a scenario names the attack {attack!r}, which the run does not have")
        _check(profile in profiles, f"a scenario names the profile {profile!r}, which the run does not have")
        fits = known == profile if knowledge in ADAPTIVE else known != profile
        _check(fits, f"a scenario of {attack!r} on {profile!r} with {knowledge} knowledge knows {known!r}")
    named = [
        *(d.profile for d in a.detection),
        *(c.profile for c in a.certification),
        *(o.profile for o in a.optimality),
        *(n.profile for n in a.natural),
        *(c.profile for c in run.certificates),
    ]
    for profile in named:
        _check(profile in profiles, f"a result names the profile {profile!r}, which the run does not have")
    for one in a.optimality:
        _check(one.attack in attacks, f"a result names the attack {one.attack!r}, which the run does not have")
        _check(one.value is None or 0 <= one.value <= 1, "an optimality is not from 0 to 1")
    _check_numbers(run)
    _check_natural(a)
    _check_subgroups(run)


def _check_names(a: Assessment, profiles: Sequence[str], attacks: Sequence[str]) -> None:
    known = (s.known for s in a.scenarios)
    for name in (a.run, a.target.name, a.suite, *profiles, *attacks, *known):
        _check(1 <= len(name) <= LONGEST_NAME, f"a name has {len(name)} characters; 1 to {LONGEST_NAME} can be shown")
    _check(len(set(attacks)) == len(attacks), "an attack is there twice")
    _check({d.name for d in a.declared} == set(attacks), "declared and attacks name different attacks")
    _check(a.suite != "paper" or a.group is None, "the suite paper has no group")


def _check_numbers(run: Run) -> None:
    for s in run.assessment.scenarios:
        for budgets in (s.asr_at_l2, s.asr_float_at_l2):
            _check([budget for budget, _ in budgets] == list(BUDGETS), f"the L2 budgets must be {BUDGETS}")
        _check(s.eligible == s.asr.trials <= s.pairs, "the eligible pairs of a scenario are not those of its rate")
    for o in run.outcomes:
        for norm in (o.l2, o.linf, o.rms):
            fits = (norm >= 0) & (norm <= _LARGEST_NORM)
            _check(fits[o.success].all(), f"a norm of a success is not from 0 to {_LARGEST_NORM:g}")
        _check(bool((o.queries >= 0).all()), "a number of queries is negative")
        _check(not (o.success & ~o.eligible).any(), "a pair that is not eligible has a success")
        ever = o.first_hit > 0
        _check(((o.first_hit == 1) == o.success).all(), "the first hits of a scenario are not those of its successes")
        _check(((o.hits > 0) == ever).all(), "a pair has hits without a first one, or a first one without hits")
        most = o.presented + 1 - o.first_hit
        fits = (o.first_hit >= 0) & (o.hits >= 0) & (~ever | (o.hits <= most))
        _check(fits.all(), "a pair has more hits than its probe was presented")
    for clean in run.assessment.clean:
        if clean.det is not None:
            _check_det(clean.det)


def _check_natural(a: Assessment) -> None:
    known, keys = {c.name for c in CORRUPTIONS}, [(n.profile, n.corruption, n.strength, n.kind) for n in a.natural]
    _check(len(set(keys)) == len(keys), "a result of a corruption is there twice")
    for n in a.natural:
        _check(n.corruption in known, f"a result names the corruption {n.corruption!r}, which does not exist")
        _check(1 <= n.strength <= STRENGTHS, f"a corruption has a strength that is not from 1 to {STRENGTHS}")


def _check_subgroups(run: Run) -> None:
    labels, told = run.faces.subgroups, run.assessment.subgroups
    named, profiles = {*labels} - {""}, [name for name, _ in run.assessment.profiles]
    _check(len(named) <= MOST_SUBGROUPS, f"results.sqlite has more than {MOST_SUBGROUPS} groups of pairs")
    _check(max(map(len, named), default=0) <= LONGEST_NAME, f"a group has more than {LONGEST_NAME} characters")
    _check((told is not None) == bool(named), "results.sqlite and report.json have different groups of pairs")
    if told is None:
        return
    stored = {
        (clean.profile, measure): subgroup_rates(labels, kind, ~clean.correct)
        for clean in run.clean
        for measure, kind in (("fnmr", run.genuine), ("fmr", ~run.genuine))
        if clean.profile in profiles
    }
    reported = {(c.profile, str(c.measure)): c.groups for c in told.comparisons}
    _check(len(reported) == len(told.comparisons), "a rate by group is there twice")
    _check(
        {key: reported.get(key) for key in stored} == stored,
        "the rates by group are not those of the groups in results.sqlite",
    )
    for comparison in told.comparisons:
        _check(comparison.profile in profiles, "a rate by group is of a profile that the run does not have")
        _check({g.label for g in comparison.groups} <= named, "a rate is of a group that no pair belongs to")


def _check_det(det: Det) -> None:
    _check(len(det.fmr) > 0, "a DET curve is empty")
    for rates in (det.fmr, det.fnmr, det.low, det.high):
        _check(len(rates) == len(det.fmr), "a DET curve has parts of different lengths")
        _check(all(0 <= rate <= 1 for rate in rates), "a DET curve has a rate beyond 0 to 1")
    _check(_rises(det.fmr) and det.fmr[0] > 0 and det.fmr[-1] < 1, "the FMR of a DET curve must rise between 0 and 1")


def _rises(values: Iterable[float]) -> bool:
    listed = list(values)
    return listed == sorted(listed)


def _check(holds: object, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
