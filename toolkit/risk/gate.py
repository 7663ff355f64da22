"""The gate: one verdict on a run, computed before any report.

A run passes only if everything that the policy requires was tested and nothing failed. If something is missing and
something failed, the verdict is "fail".
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Sequence
from pathlib import Path

from toolkit.audit.results.assessment import Assessment
from toolkit.audit.results.outcomes import Run
from toolkit.risk.findings import SEVERITIES, Judgement, Reason, Risk, Status, Verdict
from toolkit.risk.paired import differences
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import enough, finding_id, missing_adaptive, rate
from toolkit.risk.waivers import Waiver, read_waivers
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import FEWEST_PAIRS

_LEVEL = 0.05


def judge_run(
    run: Run,
    policy: Policy | str = "access-control",
    *,
    baseline: Run | None = None,
    waivers: Path | str | None = None,
    deployed: Sequence[str] = (),
    today: dt.date | None = None,
) -> Judgement:
    """Rate a finished run and give the gate's verdict on it.

    Args:
        run: the run.
        policy: a shipped policy's name, a .toml file, or a policy.
        baseline: an earlier run; the verdict fails if this run is worse.
        waivers: a .toml file of findings that somebody accepts.
        deployed: names of the deployed profiles. Default: those that the policy names.
        today: the date; a waiver holds until the end of its last day. Default: today, in UTC.

    Raises:
        InputError: the policy or the waivers are not valid, or two profiles of the run have the same name.
    """
    asked = find_policy(policy)
    risk = rate(run, asked, deployed)
    accepted = () if waivers is None else read_waivers(Path(waivers))
    day = today or dt.datetime.now(tz=dt.UTC).date()
    return Judgement(risk, judge(run, risk, asked, day, accepted, baseline))


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
        run: the run.
        risk: its rating under the same policy.
        policy: the policy.
        today: the date; a waiver holds until the end of its last day.
        waivers: accepted findings.
        baseline: an earlier run; the verdict fails if this run is worse.
    """
    reasons = [*_missing(run.assessment, risk, policy), *_failing(risk, policy), *_clean_errors(run, risk, policy)]
    if baseline is not None:
        reasons += _regressions(baseline, run, risk, policy)
    reasons += _faulty_waivers(risk, waivers, today)
    # Waivers apply only to risks. They cannot excuse missing tests or regressions.
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
    """Reasons why the evidence is incomplete or cannot be trusted."""
    reasons = []
    if not a.valid:
        reasons.append(_insufficient("invalid", "a sanity check failed: the attacks may be too weak to show the risk"))
    for unavailable in a.unavailable:
        reasons.append(_insufficient("incomplete", f"{unavailable.attack} was not run: {unavailable.reason}"))
    if not risk.profiles:
        reasons.append(_insufficient("no-profile", "no profile is deployed; name one with --deployed"))
    for profile in risk.profiles:
        reasons += _missing_of(a, profile, policy)
    return reasons


def _missing_of(a: Assessment, profile: str, policy: Policy) -> list[Reason]:
    mine = [s for s in a.scenarios if s.profile == profile]
    if not mine:
        return [_insufficient("not-audited", f"{profile} was not attacked in this run")]
    reasons = []
    for goal in missing_adaptive(a, profile) if policy.adaptive else ():
        text = f"{profile}: no adaptive attack (one that knows or queries the profile) was run for {goal}"
        reasons.append(_insufficient("no-adaptive", text))
    for attack in sorted(set(policy.attacks) - {s.attack for s in mine}):
        text = f"{profile}: the policy requires {attack}, which was not run"
        reasons.append(_insufficient("no-attack", text))
    for goal in dict.fromkeys(s.goal for s in mine):
        fewest = min(s.eligible for s in mine if s.goal == goal)
        if not enough(fewest, policy):
            text = (
                f"{profile}: {fewest} eligible pairs for {goal} are too few to show an attack success rate (ASR) "
                f"below {policy.provable_asr:g}"
            )
            reasons.append(_insufficient("few-pairs", text))
    return reasons


def _failing(risk: Risk, policy: Policy) -> list[Reason]:
    reasons = []
    for f in risk.findings:
        if f.profile not in risk.profiles:
            continue
        if f.severity == "unknown" and enough(f.within.trials, policy):
            reasons.append(_insufficient("unknown", f"{f.id}: a sanity check failed, so the risk is unknown", f.id))
        elif f.severity != "unknown" and SEVERITIES.index(f.severity) >= SEVERITIES.index(policy.fail_at):
            reasons.append(Reason("risk", f"{f.severity}: {f.meaning}", f.id))
    return reasons


def _clean_errors(run: Run, risk: Risk, policy: Policy) -> list[Reason]:
    """Clean error rates above their limits, and pairs that are too few to show that a rate is within its limit."""
    reasons = []
    for clean in run.assessment.clean:
        for name, error, limit in (("FNMR", clean.fnmr, policy.max_fnmr), ("FMR", clean.fmr, policy.max_fmr)):
            if clean.profile not in risk.profiles or limit >= 1:
                continue
            if (error.value or 0.0) > limit:
                text = f"{clean.profile}: clean {name} {error.successes}/{error.trials} is above {limit:g}"
                reasons.append(Reason("clean-error", text))
            elif Rate(0, error.trials).upper_bound() > limit:
                text = f"{clean.profile}: {error.trials} pairs are too few to show a clean {name} of {limit:g}"
                reasons.append(_insufficient("few-pairs", text))
    return reasons


def _regressions(baseline: Run, run: Run, risk: Risk, policy: Policy) -> list[Reason]:
    """Rates that are significantly worse than in the baseline, and scenarios of the baseline that this run lacks."""
    found = {d.id: d for d in differences(baseline, run, policy)}
    reasons = [
        _insufficient("baseline", f"{f} is in the baseline, but not in this run", f)
        for f in _ids(baseline, risk.profiles)
        if f not in found
    ]
    other = _other_parameters(baseline, run)
    for d in found.values():
        if d.profile not in risk.profiles:
            continue
        if d.id in other:
            text = f"{d.id}: cannot be compared, because the attack had other parameters in the baseline"
            reasons.append(_insufficient("baseline", text, d.id))
        elif d.pairs < FEWEST_PAIRS:
            text = f"{d.id}: {d.pairs} pairs in common with the baseline are too few to compare"
            reasons.append(_insufficient("baseline", text, d.id))
        elif d.p_adjusted < _LEVEL and d.only_second > d.only_first:
            text = (
                f"{d.id}: {d.only_second} of {d.pairs} pairs became worse than in the baseline, and {d.only_first} "
                f"became better (p = {d.p_adjusted:.2g})"
            )
            reasons.append(Reason("regression", text, d.id))
    return reasons


def _other_parameters(baseline: Run, run: Run) -> set[str]:
    """Ids of this run's findings whose attack had other parameters in the baseline."""
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
            text = (
                f"the waiver of {waiver.finding} by {waiver.owner} expired on {waiver.expires}; "
                "renew it, or fix the finding"
            )
            reasons.append(Reason("waiver-expired", text, waiver.finding))
        elif waiver.finding not in known:
            near = difflib.get_close_matches(waiver.finding, sorted(known), 1)
            what = f"did you mean {near[0]}?" if near else "remove the waiver"
            text = f"a waiver names the finding {waiver.finding}, which is not in this run; {what}"
            reasons.append(Reason("waiver-unknown", text, waiver.finding))
    return reasons
