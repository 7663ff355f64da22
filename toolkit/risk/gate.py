"""The gate: one verdict on a run, computed before anything is rendered.

Whatever was not tested is a reason not to pass. A failure outranks what is missing: both are never a pass.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Sequence

from toolkit.audit.assessment import Assessment
from toolkit.audit.outcomes import Run
from toolkit.audit.select import FEWEST_PAIRS
from toolkit.risk.findings import SEVERITIES, Reason, Risk, Status, Verdict
from toolkit.risk.paired import differences
from toolkit.risk.policy import Policy
from toolkit.risk.rate import enough, finding_id, missing_adaptive
from toolkit.risk.waivers import Waiver
from toolkit.statistics.intervals import Rate

_LEVEL = 0.05


def judge(
    run: Run,
    risk: Risk,
    policy: Policy,
    today: dt.date,
    waivers: Sequence[Waiver] = (),
    baseline: Run | None = None,
) -> Verdict:
    """Judge a run.

    Args:
        run: what was found.
        risk: its rating under the same policy.
        policy: what is asked for.
        today: a waiver holds until the end of its last day.
        waivers: accepted findings.
        baseline: an earlier run, than which this one must not be worse.
    """
    reasons = [*_missing(run.assessment, risk, policy), *_failing(risk, policy), *_clean_errors(run, risk, policy)]
    if baseline is not None:
        reasons += _regressions(baseline, run, risk, policy)
    reasons += _faulty_waivers(risk, waivers, today)
    # Only a finding's risk can be answered for: what was not tested, and what became worse, cannot.
    in_force = {waiver.finding for waiver in waivers if waiver.expires >= today}
    waived = [r for r in reasons if r.code == "risk" and r.finding in in_force]
    left = sorted((r for r in reasons if r not in waived), key=lambda r: r.status != "fail")
    return Verdict(_status(left), tuple(left), tuple(waived))


def _status(reasons: Sequence[Reason]) -> Status:
    order: tuple[Status, ...] = ("pass", "insufficient", "fail")
    return max((r.status for r in reasons), key=order.index, default="pass")


def _insufficient(code: str, text: str, finding: str | None = None) -> Reason:
    return Reason(code, text, finding, "insufficient")


def _missing(a: Assessment, risk: Risk, policy: Policy) -> list[Reason]:
    """What was not tested, or cannot be trusted."""
    reasons = []
    if not a.valid:
        reasons.append(_insufficient("invalid", "a sanity check failed: low success rates may be the attacks' fault"))
    for unavailable in a.unavailable:
        reasons.append(_insufficient("incomplete", f"{unavailable.attack} was not run: {unavailable.reason}"))
    if not risk.profiles:
        reasons.append(_insufficient("no-profile", "no profile counts as deployed"))
    for profile in risk.profiles:
        reasons += _missing_of(a, profile, policy)
    return reasons


def _missing_of(a: Assessment, profile: str, policy: Policy) -> list[Reason]:
    mine = [s for s in a.scenarios if s.profile == profile]
    if not mine:
        return [_insufficient("not-audited", f"{profile} was not attacked in this run")]
    reasons = []
    for goal in missing_adaptive(a, profile) if policy.adaptive else ():
        text = f"{profile}: no attack that knows it, or asks it, was run for {goal}"
        reasons.append(_insufficient("no-adaptive", text))
    for attack in sorted(set(policy.attacks) - {s.attack for s in mine}):
        text = f"{profile}: {attack}, which the policy asks for, was not run"
        reasons.append(_insufficient("no-attack", text))
    for goal in dict.fromkeys(s.goal for s in mine):
        fewest = min(s.eligible for s in mine if s.goal == goal)
        if not enough(fewest, policy):
            text = f"{profile}: {fewest} eligible pairs for {goal} cannot show an ASR below {policy.provable_asr:g}"
            reasons.append(_insufficient("few-pairs", text))
    return reasons


def _failing(risk: Risk, policy: Policy) -> list[Reason]:
    reasons = []
    for f in risk.findings:
        if f.profile not in risk.profiles:
            continue
        if f.severity == "unknown" and enough(f.within.trials, policy):
            reasons.append(_insufficient("unknown", f"{f.id}: a sanity check failed, so it cannot be called low", f.id))
        elif f.severity != "unknown" and SEVERITIES.index(f.severity) >= SEVERITIES.index(policy.fail_at):
            reasons.append(Reason("risk", f"{f.severity}: {f.meaning}", f.id))
    return reasons


def _clean_errors(run: Run, risk: Risk, policy: Policy) -> list[Reason]:
    """Error rates beyond their limits, and pairs that could not show that they are within, even without an error."""
    reasons = []
    for clean in run.assessment.clean:
        for name, rate, limit in (("FNMR", clean.fnmr, policy.max_fnmr), ("FMR", clean.fmr, policy.max_fmr)):
            if clean.profile not in risk.profiles or limit >= 1:
                continue
            if (rate.value or 0.0) > limit:
                text = f"{clean.profile}: clean {name} {rate.successes}/{rate.trials} is above {limit:g}"
                reasons.append(Reason("clean-error", text))
            elif Rate(0, rate.trials).upper_bound() > limit:
                text = f"{clean.profile}: {rate.trials} pairs cannot show a clean {name} of {limit:g}"
                reasons.append(_insufficient("few-pairs", text))
    return reasons


def _regressions(baseline: Run, run: Run, risk: Risk, policy: Policy) -> list[Reason]:
    """What is worse than in the baseline by the paired test, and what the baseline had and this run has not."""
    found = {d.id: d for d in differences(baseline, run, policy)}
    reasons = [
        _insufficient("baseline", f"{f} of the baseline was not run again", f)
        for f in _ids(baseline, risk.profiles)
        if f not in found
    ]
    other = _other_parameters(baseline, run)
    for d in found.values():
        if d.profile not in risk.profiles:
            continue
        if d.id in other:
            text = f"{d.id}: the attack had other parameters in the baseline, so that the two do not compare"
            reasons.append(_insufficient("baseline", text, d.id))
        elif d.pairs < FEWEST_PAIRS:
            text = f"{d.id}: {d.pairs} pairs in common with the baseline show nothing"
            reasons.append(_insufficient("baseline", text, d.id))
        elif d.p_adjusted < _LEVEL and d.only_second > d.only_first:
            text = (
                f"{d.id}: {d.only_second} pairs fell that did not in the baseline, {d.only_first} the other way "
                f"(of {d.pairs}, p = {d.p_adjusted:.2g})"
            )
            reasons.append(Reason("regression", text, d.id))
    return reasons


def _other_parameters(baseline: Run, run: Run) -> set[str]:
    """Findings of this run whose attack was another one in the baseline, but for its name."""
    before = dict(baseline.assessment.attacks)
    changed = {name for name, parameters in run.assessment.attacks if before.get(name, parameters) != parameters}
    return {finding_id(s) for s in run.assessment.scenarios if s.attack in changed}


def _ids(run: Run, profiles: Sequence[str]) -> list[str]:
    return [finding_id(s) for s in run.assessment.scenarios if s.profile in profiles]


def _faulty_waivers(risk: Risk, waivers: Sequence[Waiver], today: dt.date) -> list[Reason]:
    known = {f.id for f in risk.findings}
    reasons = []
    for waiver in waivers:
        if waiver.expires < today:
            text = f"the waiver of {waiver.finding} by {waiver.owner} ended on {waiver.expires}: renew it, or mend it"
            reasons.append(Reason("waiver-expired", text, waiver.finding))
        elif waiver.finding not in known:
            near = difflib.get_close_matches(waiver.finding, sorted(known), 1)
            what = f"did you mean {near[0]}?" if near else "remove it"
            text = f"a waiver is of {waiver.finding}, which this run has not; {what}"
            reasons.append(Reason("waiver-unknown", text, waiver.finding))
    return reasons
