"""The gate: one verdict on a run, computed before any report.

A verdict is about the worst that was shown within the policy's budget, by attacks strong enough to show it. Everything
else is not shown, and never passes. If something is missing and something failed, the verdict is "fail".
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from toolkit.audit.results.assessment import Assessment
from toolkit.audit.results.outcomes import Run
from toolkit.risk.findings import Judgement, Reason, Risk, Status, Verdict, WorstCase
from toolkit.risk.headline import unmet_in_words, worst_in_words
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate
from toolkit.risk.regressions import regressions
from toolkit.risk.waivers import Waiver, read_waivers
from toolkit.risk.worst import worst_cases


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
    held = _in_force(waivers, policy, today)
    waived = {waiver.finding for waiver in held}
    worst = worst_cases(run, policy, risk.findings, risk.profiles, waived) if waived else risk.worst
    reasons = [*_missing(run.assessment, risk, policy), *_clean_errors(risk)]
    reasons += [_insufficient("no-evidence", text) for text in unmet_in_words(worst, policy.within)]
    for case in worst:
        reasons += _judged(case, policy, waived)
    if baseline is not None:
        reasons += regressions(baseline, run, risk, policy)
    reasons += _faulty_waivers(risk, policy, waivers, today)
    reasons.sort(key=lambda reason: reason.status != "fail")
    return Verdict(_status(reasons), tuple(reasons), tuple(_waived(risk, held)))


def _status(reasons: Sequence[Reason]) -> Status:
    order: tuple[Status, ...] = ("pass", "insufficient", "fail")
    return max((r.status for r in reasons), key=order.index, default="pass")


def _insufficient(code: str, text: str, findings: tuple[str, ...] = ()) -> Reason:
    return Reason(code, text, findings, "insufficient")


def _missing(a: Assessment, risk: Risk, policy: Policy) -> list[Reason]:
    """Reasons why the evidence is incomplete or cannot be trusted."""
    reasons = []
    if not a.valid:
        reasons.append(_insufficient("invalid", "a sanity check failed: the attacks may be too weak to show the risk"))
    for unavailable in a.unavailable:
        reasons.append(_insufficient("incomplete", f"{unavailable.attack} was not run: {unavailable.reason}"))
    if not risk.profiles:
        reasons.append(_insufficient("no-profile", "no profile is deployed; name one with --deployed"))
    if a.generated and not policy.generated_faces:
        reasons.append(_insufficient("generated", "the faces are generated: they say nothing about real people"))
    reasons += [_insufficient("data", warning) for warning in risk.warnings]
    for profile in risk.profiles:
        reasons += _missing_of(a, profile, policy)
    return reasons


def _missing_of(a: Assessment, profile: str, policy: Policy) -> list[Reason]:
    mine = [s for s in a.scenarios if s.profile == profile]
    if not mine:
        return [_insufficient("not-audited", f"{profile} was not attacked in this run")]
    return [
        _insufficient("no-attack", f"{profile}: the policy requires {attack}, which was not run")
        for attack in sorted(set(policy.attacks) - {s.attack for s in mine})
    ]


def _judged(case: WorstCase, policy: Policy, waived: Collection[str]) -> list[Reason]:
    """Why one worst case fails, or why it is not shown to hold."""
    required, about = policy.goals[case.goal], f"{case.profile}, {case.goal}"
    limit = f"the policy allows an upper bound of {100 * required.max_asr:g} %"
    reasons = []
    if case.within.trials < required.pairs:
        text = f"{about}: {case.within.trials} distinct eligible pairs; the policy asks for {required.pairs}"
        reasons.append(_insufficient("few-pairs", text))
    if case.people is None:
        text = f"{about}: the pairs do not name their people; the policy asks for {required.people}"
        reasons.append(_insufficient("few-people", text))
    elif case.people < required.people:
        text = f"{about}: {case.people} people in the eligible pairs; the policy asks for {required.people}"
        reasons.append(_insufficient("few-people", text))
    shown = [met.finding for met in case.met if met.finding]
    if shown and all(finding in waived for finding in shown):
        reasons.append(_insufficient("all-waived", f"{about}: every finding that is evidence is waived"))
    value = case.within.value
    if value is not None and value > required.max_asr:
        text = f"{case.severity}: {worst_in_words(case, policy.within)}; {limit}"
        reasons.append(Reason("risk", text, tuple(name for name, _ in case.by)))
    elif case.within.trials and case.bound > required.max_asr:
        text = f"{worst_in_words(case, policy.within)}; {limit}"
        reasons.append(_insufficient("few-pairs", text, tuple(name for name, _ in case.by)))
    return reasons


def _clean_errors(risk: Risk) -> list[Reason]:
    """Clean error rates above their limits, and pairs that are too few to show that a rate is within its limit."""
    reasons = []
    for error in risk.clean:
        name, limit = f"{error.profile}: clean {error.kind.upper()}", f"{100 * error.limit:g} %"
        counts = f"{error.rate.successes}/{error.rate.trials}"
        if error.beyond:
            reasons.append(Reason("clean-error", f"{name} {counts} is above {limit}"))
        elif error.bound > error.limit:
            text = f"{name} {counts} has an upper bound of {100 * error.bound:.1f} %, which is above {limit}"
            reasons.append(_insufficient("few-pairs", text))
    return reasons


def _in_force(waivers: Sequence[Waiver], policy: Policy, today: dt.date) -> list[Waiver]:
    current = _current(waivers, policy, today)
    return current if len(current) <= policy.waivers else []


def _current(waivers: Sequence[Waiver], policy: Policy, today: dt.date) -> list[Waiver]:
    return [w for w in waivers if today <= w.expires <= _latest(policy, today)]


def _latest(policy: Policy, today: dt.date) -> dt.date:
    return today + dt.timedelta(days=policy.waiver_days)


def _waived(risk: Risk, held: Sequence[Waiver]) -> list[Reason]:
    by_id = {f.id: f for f in risk.findings}
    return [
        Reason(
            "risk",
            f"{by_id[w.finding].meaning} Accepted by {w.owner} until {w.expires}: {w.reason}",
            (w.finding,),
        )
        for w in held
        if w.finding in by_id
    ]


def _faulty_waivers(risk: Risk, policy: Policy, waivers: Sequence[Waiver], today: dt.date) -> list[Reason]:
    known = {f.id for f in risk.findings}
    reasons = []
    current = _current(waivers, policy, today)
    if len(current) > policy.waivers:
        text = f"{len(current)} waivers at once; the policy allows {policy.waivers}, so none holds"
        reasons.append(Reason("waiver-too-many", text))
    for waiver in waivers:
        if waiver.expires < today:
            text = (
                f"the waiver of {waiver.finding} by {waiver.owner} expired on {waiver.expires}; "
                "renew it, or fix the finding"
            )
            reasons.append(Reason("waiver-expired", text, (waiver.finding,)))
        elif waiver.expires > _latest(policy, today):
            text = (
                f"the waiver of {waiver.finding} by {waiver.owner} ends on {waiver.expires}; the policy allows "
                f"{policy.waiver_days} days, so it does not hold"
            )
            reasons.append(Reason("waiver-too-long", text, (waiver.finding,)))
        elif waiver.finding not in known:
            near = difflib.get_close_matches(waiver.finding, sorted(known), 1)
            what = f"did you mean {near[0]}?" if near else "remove the waiver"
            text = f"a waiver names the finding {waiver.finding}, which is not in this run; {what}"
            reasons.append(Reason("waiver-unknown", text, (waiver.finding,)))
    return reasons
