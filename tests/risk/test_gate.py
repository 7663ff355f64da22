"""Nobody passes the gate by testing less: what was not shown within the budget, by strong attacks, does not pass."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.commands import ROOT, sixpixels
from tests.risk.runs import ATTACKS, BUDGET, Told, falls, told_run, without, write
from toolkit.attacks.base import Attack
from toolkit.audit.plan import Unavailable
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.outcomes import Run
from toolkit.risk.findings import Verdict
from toolkit.risk.gate import judge, judge_run
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate
from toolkit.risk.waivers import Waiver
from toolkit.statistics.intervals import Rate

POLICY = find_policy("access-control")
TODAY = dt.date(2030, 5, 17)
PAIRS = 100
# One attack of each class that the policy asks for.
MINIMAL, BUDGETED = Told("deepfool", "perfect", "mean3"), Told("apgd", "perfect", "mean3")
QUERY, TRANSFER = Told("square", "query", "mean3"), Told("apgd", "zero", "mean3")
GOOD = [MINIMAL, BUDGETED, QUERY, TRANSFER]
WAIVED = "deepfool/perfect/mean3/impersonation"


def run_of(scenarios: list[Told], **others: object) -> Run:
    return told_run(scenarios, **{"pairs": PAIRS, **others})  # type: ignore[arg-type]


def fell(first: Told, **others: int) -> list[Told]:
    """A good run, apart from one scenario."""
    return [replace(told, **others) if told == first else told for told in GOOD]


BAD = fell(MINIMAL, impersonated=PAIRS)


def verdict(run: Run, policy: Policy = POLICY, **others: object) -> Verdict:
    chosen = others.pop("chosen", ())
    found = judge(run, rate(run, policy, chosen), policy, TODAY, **others)  # type: ignore[arg-type]
    assert all(isinstance(reason.text, str) for reason in (*found.reasons, *found.waived)), "every reason is told"
    return found


def codes(of: Verdict) -> set[str]:
    return {reason.code for reason in of.reasons}


def waiver(finding: str = WAIVED, days: int = 30) -> Waiver:
    return Waiver(finding, "me", "a second factor is asked for", TODAY + dt.timedelta(days=days))


def with_attack(name: str, **parameters: object) -> Mapping[str, Attack]:
    return {name: replace(ATTACKS[name], **parameters)}  # type: ignore[type-var]


def test_a_good_run_passes_and_a_bad_one_fails() -> None:
    assert verdict(run_of(GOOD)) == Verdict("pass", (), ())
    found = verdict(run_of(BAD))
    assert (found.status, codes(found)) == ("fail", {"risk"})
    assert found.reasons[0].findings == (WAIVED,)
    assert "100 of 100" in found.reasons[0].text


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (run_of([]), "not-audited"),
        (run_of(GOOD, pairs=30), "few-pairs"),
        (run_of(GOOD, copies=PAIRS), "data"),
        (run_of(GOOD, people=5), "few-people"),
        (run_of(GOOD, people=0), "few-people"),
        (run_of(GOOD, generated=True), "generated"),
        (run_of([MINIMAL, BUDGETED, QUERY]), "no-evidence"),
        (run_of([MINIMAL, BUDGETED, TRANSFER]), "no-evidence"),
        (run_of([MINIMAL, QUERY, TRANSFER]), "no-evidence"),
        (run_of([BUDGETED, QUERY, TRANSFER]), "no-evidence"),
        (run_of(GOOD, unavailable=[Unavailable("fmn", "no gradients")]), "incomplete"),
        (run_of(GOOD, checks=[Check("gradient", "mean3", False, "")]), "invalid"),
        (run_of([replace(told, profile="none") for told in GOOD], profiles=("none", "mean3")), "not-audited"),
    ],
    ids=[
        "nothing", "few", "copies", "few people", "unnamed people", "generated", "no transfer",
        "no query", "no ball", "no minimal", "incomplete", "invalid", "another profile",
    ],
)  # fmt: skip
def test_what_was_not_tested_is_not_passed(run: Run, code: str) -> None:
    found = verdict(run)
    assert found.status == "insufficient"
    assert code in codes(found)


@pytest.mark.parametrize(
    ("attacks", "why"),
    [
        (with_attack("apgd", epsilon=8 / 255), "beyond"),
        (with_attack("apgd", epsilon=1 / 255), "does not spend"),
        (with_attack("apgd", epsilon=BUDGET * 0.89), "does not spend"),
        (with_attack("apgd", steps=1), "1 steps"),
        (with_attack("apgd", momentum=0.0), "apgd.momentum"),
        (with_attack("square", epsilon=8 / 255), "beyond"),
        (with_attack("square", budget=500), "500 queries"),
        (with_attack("square", share=0.01), "square.share"),
        (with_attack("deepfool", steps=1), "1 steps"),
        (with_attack("deepfool", overshoot=0.0), "deepfool.overshoot"),
    ],
    ids=str,
)
def test_attacks_that_are_weak_or_speak_of_another_budget_are_no_evidence(
    attacks: Mapping[str, Attack], why: str
) -> None:
    run = run_of(GOOD, attacks=attacks)
    found = verdict(run)
    assert (found.status, codes(found)) == ("insufficient", {"no-evidence"})
    assert all(why in reason.text for reason in found.reasons)
    (name,) = attacks
    assert all(why in f.no_evidence for f in rate(run, POLICY).findings if f.attack == name)


def test_more_of_what_makes_an_attack_stronger_is_evidence() -> None:
    strong = {**with_attack("apgd", steps=400, restarts=3), **with_attack("square", budget=50_000)}
    assert verdict(run_of(GOOD, attacks=strong)).status == "pass"
    assert verdict(run_of(GOOD, attacks=with_attack("apgd", epsilon=BUDGET * 0.91))).status == "pass"


def test_a_success_beyond_the_budget_is_no_failure_within_it() -> None:
    """An attack that fills a larger ball succeeds everywhere: this shows nothing within the budget."""
    momentum = [
        Told("momentum", level, "mean3", dodged=100, impersonated=100, rms=16.0) for level in ("zero", "perfect")
    ]  # type: ignore[arg-type]
    found = verdict(run_of(momentum))
    assert found.status == "insufficient"
    assert "no-evidence" in codes(found)
    assert all("beyond" in f.no_evidence for f in rate(run_of(momentum), POLICY).findings)


def test_a_success_counts_however_weak_its_attack_is() -> None:
    weak = with_attack("apgd", steps=1)
    found = verdict(run_of(fell(BUDGETED, dodged=60), attacks=weak))
    assert found.status == "fail"
    assert "risk" in codes(found)


def test_attacks_fail_together() -> None:
    """Each attack alone gets 9 pairs, which the policy allows; the union of different pairs does not pass."""
    lenient = replace(POLICY, goals={g: replace(r, max_asr=0.2) for g, r in POLICY.goals.items()})
    alone = run_of(fell(MINIMAL, dodged=12))
    assert verdict(alone, lenient).status == "pass"
    other = run_of(fell(BUDGETED, dodged=24))
    late = other.outcomes[1].success.copy()
    late[:12] = False  # the 12 pairs that the first attack does not get
    outcomes = (alone.outcomes[0], falls(other.outcomes[1], late), *alone.outcomes[2:])
    together = replace(other, outcomes=outcomes)
    found = verdict(together, lenient)
    assert found.status == "fail"
    assert "24 of 100" in found.reasons[0].text


def test_what_is_between_its_limit_and_its_bound_is_not_shown() -> None:
    for count in range(16):
        run = run_of(fell(MINIMAL, dodged=count))
        expected = "pass" if Rate(count, PAIRS).upper_bound() <= 0.1 else "insufficient" if count <= 10 else "fail"
        assert verdict(run).status == expected, count


def test_a_policy_may_leave_out_a_knowledge_or_a_goal() -> None:
    black_box = replace(
        POLICY,
        knowledge=("zero", "query"),
        goals={g: replace(r, evidence=("query", "transfer")) for g, r in POLICY.goals.items()},
    )
    assert verdict(run_of(BAD), black_box).status == "pass"
    assert verdict(run_of(BAD), replace(POLICY, goals={"dodging": POLICY.goals["dodging"]})).status == "pass"
    group = replace(POLICY, goals={"dodging": POLICY.goals["dodging"], "group": POLICY.goals["group"]})
    assert verdict(run_of(GOOD), group).status == "pass", "a run of pairs does not test a group"


def test_clean_errors_have_limits_for_their_bounds() -> None:
    assert codes(verdict(run_of(GOOD, wrong=range(100, 110)))) == {"clean-error"}
    assert verdict(run_of(GOOD, wrong=range(100, 110))).status == "fail"
    # 3 of 100 are within 5 %, and their bound, 7.6 %, is not.
    near = verdict(run_of(GOOD, wrong=range(100, 103)))
    assert (near.status, codes(near)) == ("insufficient", {"few-pairs"})
    refuses = verdict(run_of(GOOD, eligible=0))
    assert (refuses.status, codes(refuses)) == ("fail", {"clean-error", "few-pairs", "few-people", "data"})


def test_what_a_policy_asks_for_must_be_there() -> None:
    found = verdict(run_of(GOOD), replace(POLICY, attacks=("pgd", "deepfool", "fmn")))
    assert [reason.code for reason in found.reasons] == ["no-attack", "no-attack"]
    elsewhere = run_of([*GOOD, Told("pgd", "perfect", "none")])
    assert codes(verdict(elsewhere, replace(POLICY, attacks=("pgd",)))) == {"no-attack"}, "of another profile"


def test_nothing_deployed_is_nothing_tested() -> None:
    assert codes(verdict(run_of([], profiles=()))) == {"no-profile"}


def test_a_profile_that_is_not_deployed_decides_nothing() -> None:
    bare = Told("deepfool", "perfect", "none", dodged=PAIRS, impersonated=PAIRS)
    assert verdict(run_of([bare, *GOOD])).status == "pass"
    assert verdict(run_of([bare, *GOOD]), chosen=["none"]).status == "fail"


def test_a_waiver_takes_away_its_finding_alone_and_is_listed() -> None:
    found = verdict(run_of(BAD), waivers=[waiver()])
    assert found.status == "pass"
    assert [reason.findings for reason in found.waived] == [(WAIVED,)]
    assert "me until 2030-06-16: a second factor is asked for" in found.waived[0].text
    both = [*fell(MINIMAL, impersonated=PAIRS)[:1], replace(BUDGETED, impersonated=PAIRS), QUERY, TRANSFER]
    left = verdict(run_of(both), waivers=[waiver()])
    assert left.status == "fail"
    assert left.reasons[0].findings == ("apgd/perfect/mean3/impersonation",)


@pytest.mark.parametrize(
    ("waivers", "code"),
    [
        ([waiver(days=-1)], "waiver-expired"),
        ([waiver(days=181)], "waiver-too-long"),
        ([Waiver(WAIVED, "me", "r", dt.date(2999, 1, 1))], "waiver-too-long"),
        ([waiver("deepfool/perfect/mean3/impersonatio")], "waiver-unknown"),
        ([waiver(f"{name}/mean3/{goal}") for name in ("deepfool/perfect", "apgd/perfect") for goal in
          ("dodging", "impersonation")], "waiver-too-many"),
    ],
)  # fmt: skip
def test_a_waiver_that_does_not_hold_fails_the_gate(waivers: list[Waiver], code: str) -> None:
    found = verdict(run_of(BAD), waivers=waivers)
    assert found.status == "fail"
    assert codes(found) == {code, "risk"}
    assert not found.waived
    assert verdict(run_of(GOOD), waivers=waivers).status == "fail", "somebody has to look at it"


def test_a_waiver_holds_until_the_end_of_the_longest_time() -> None:
    assert verdict(run_of(BAD), waivers=[waiver(days=0)]).status == "pass"
    assert verdict(run_of(BAD), waivers=[waiver(days=180)]).status == "pass"


def test_as_many_waivers_hold_as_the_policy_allows() -> None:
    assert verdict(run_of(BAD), replace(POLICY, waivers=1), waivers=[waiver()]).status == "pass"
    assert verdict(run_of(BAD), replace(POLICY, waivers=0), waivers=[waiver()]).status == "fail"


def test_not_everything_can_be_waived() -> None:
    everything = [waiver(f"{name}/mean3/{goal}") for name in
                  ("deepfool/perfect", "apgd/perfect", "square/query", "apgd/zero")
                  for goal in ("dodging", "impersonation")]  # fmt: skip
    lenient = replace(POLICY, waivers=100)
    found = verdict(run_of([replace(t, dodged=PAIRS, impersonated=PAIRS) for t in GOOD]), lenient, waivers=everything)
    assert (found.status, codes(found)) == ("insufficient", {"all-waived"})
    few = verdict(run_of(GOOD, pairs=20), waivers=[waiver()])
    assert few.status == "insufficient", "a missing test cannot be waived"


def test_a_regression_is_told_by_the_paired_test() -> None:
    before = run_of(GOOD)
    lenient = replace(POLICY, goals={g: replace(r, max_asr=0.5) for g, r in POLICY.goals.items()})
    worse = run_of(fell(MINIMAL, dodged=12))
    assert verdict(worse, lenient).status == "pass"
    found = verdict(worse, lenient, baseline=before)
    assert (found.status, codes(found)) == ("fail", {"regression"})
    assert verdict(run_of(fell(MINIMAL, dodged=3)), lenient, baseline=before).status == "pass"
    assert verdict(before, lenient, baseline=worse).status == "pass", "better is no regression"
    refused = verdict(run_of(GOOD, wrong=range(12)), lenient, baseline=before)
    assert "regression" in codes(refused), "clean errors count too"
    assert verdict(worse, replace(lenient, waivers=9), baseline=before, waivers=[
        waiver("deepfool/perfect/mean3/dodging")]).status == "fail", "what became worse cannot be waived"  # fmt: skip


def test_too_few_pairs_to_show_a_regression_are_not_enough() -> None:
    """Nine of fifteen newly fallen pairs once passed as no regression, in silence."""
    lenient = replace(
        POLICY,
        goals={g: replace(r, max_asr=1.0, pairs=1, people=1) for g, r in POLICY.goals.items()},
        max_fnmr=1.0,
        max_fmr=1.0,
    )
    few = run_of(GOOD, pairs=15)
    assert verdict(run_of(fell(MINIMAL, dodged=9), pairs=15), lenient, baseline=few).status == "fail"
    found = verdict(few, lenient, baseline=few)
    assert (found.status, codes(found)) == ("insufficient", {"baseline"})
    assert all("15 pairs" in reason.text and "probability" in reason.text for reason in found.reasons)
    assert verdict(few, replace(lenient, regression=0.9), baseline=few).status == "pass"


def test_a_baseline_with_other_pairs_or_more_attacks_shows_nothing() -> None:
    before = run_of(GOOD)
    other = verdict(run_of(GOOD), baseline=run_of(GOOD, first=1000))
    assert codes(other) == {"baseline"}
    assert codes(verdict(run_of([MINIMAL, BUDGETED, QUERY]), baseline=before)) == {"no-evidence", "baseline"}
    attacks = tuple((name, (("budget", 3),)) for name, _ in before.assessment.attacks)
    weaker = replace(before, assessment=replace(before.assessment, attacks=attacks))
    found = verdict(weaker, baseline=before)
    assert codes(found) == {"baseline"}, "weaker attacks that break less are no progress"
    assert all("other parameters" in reason.text for reason in found.reasons)


def test_a_failure_stands_before_what_is_missing() -> None:
    found = verdict(run_of([replace(TRANSFER, impersonated=PAIRS)]))
    assert found.status == "fail"
    assert [reason.status for reason in found.reasons][:2] == ["fail", "insufficient"]


@settings(max_examples=30)
@given(
    counts=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=4, max_size=4),
    gone=st.sets(st.integers(0, 3)),
)
def test_testing_less_never_helps(counts: list[tuple[int, int]], gone: set[int]) -> None:
    full = run_of([replace(t, dodged=d, impersonated=i) for t, (d, i) in zip(GOOD, counts, strict=True)])
    if verdict(full).status == "pass":
        return
    less = full
    for scenario in sorted(gone, reverse=True):
        less = without(less, scenario)
    assert verdict(less).status != "pass"


@settings(max_examples=30)
@given(before=st.integers(0, 99), more=st.integers(1, 50), which=st.integers(0, 3))
def test_more_successes_never_help(before: int, more: int, which: int) -> None:
    order = ("pass", "insufficient", "fail")
    counts = (before, min(before + more, PAIRS))
    found = [verdict(run_of(fell(GOOD[which], dodged=count, impersonated=count))).status for count in counts]
    assert order.index(found[0]) <= order.index(found[1])


def gate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return sixpixels("gate", *arguments, cwd=ROOT)


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (lambda run: None, 0),
        (lambda run: (run / "report.json").unlink(), 2),
        (lambda run: [p.unlink() for p in run.glob("*") if p.name != "report.json"], 2),
        (lambda run: (run / "report.json").write_text("{}"), 2),
        (lambda run: write(run, []), 3),
        (lambda run: write(run, GOOD[:1], pairs=PAIRS), 3),
        (lambda run: write(run, BAD, pairs=PAIRS), 1),
    ],
    ids=["whole", "interrupted", "outcomes lost", "damaged", "no scenario", "one attack", "bad"],
)
def test_the_command_passes_a_whole_run_alone(tmp_path: Path, damage: Callable[[Path], object], status: int) -> None:
    run = write(tmp_path / "run", GOOD, pairs=PAIRS)
    damage(run)
    done = gate(run)
    assert done.returncode == status, done.stdout + done.stderr
    told = gate(run, "--json")
    assert told.returncode == status, "the exit status is the same in every format"
    if status in (0, 1, 3):
        assert json.loads(told.stdout)["verdict"]["status"] == {0: "pass", 1: "fail", 3: "insufficient"}[status]


def test_the_command_reads_policies_waivers_and_baselines(tmp_path: Path) -> None:
    run, today = write(tmp_path / "run", BAD, pairs=PAIRS), dt.datetime.now(tz=dt.UTC).date()
    waivers = tmp_path / "waivers.toml"
    for days, status in ((2, 0), (-2, 1), (400_000, 1)):
        text = f'schema = 1\n[[waiver]]\nfinding = "{WAIVED}"\nowner = "me"\nreason = "r"\n'
        waivers.write_text(f"{text}expires = {today + dt.timedelta(days=days)}\n")
        assert gate(run, "--waivers", waivers).returncode == status
    assert gate(run, "--policy", "watchlst").returncode == 4
    assert gate(tmp_path / "nowhere", "--policy", "watchlst").returncode == 4, "a usage error comes first"
    assert gate(run, "--deployed", "none").returncode == 3
    assert gate(run, "--baseline", write(tmp_path / "old", GOOD, pairs=PAIRS)).returncode == 1
    assert gate(run, "--format", "nonsense").returncode == 4


def test_a_run_is_judged_in_one_call(tmp_path: Path) -> None:
    good, bad = run_of(GOOD), run_of(BAD)
    assert judge_run(good).risk == rate(good, POLICY)
    assert judge_run(good).verdict == verdict(good)
    assert (judge_run(good).exit_status, judge_run(bad).exit_status) == (0, 1)
    watched = find_policy("watchlist")
    assert judge_run(bad, "watchlist").risk == judge_run(bad, watched).risk == rate(bad, watched)
    assert judge_run(bad, watched, deployed=["none"]).verdict == verdict(bad, watched, chosen=["none"])
    assert judge_run(bad, baseline=good).verdict == verdict(bad, baseline=good)
    waivers = tmp_path / "waivers.toml"
    waivers.write_text(f'schema = 1\n[[waiver]]\nfinding = "{WAIVED}"\nowner = "me"\nreason = "r"\nexpires = {TODAY}\n')
    assert judge_run(bad, waivers=waivers, today=TODAY).exit_status == 0
    assert judge_run(bad, waivers=str(waivers), today=TODAY + dt.timedelta(days=1)).exit_status == 1


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system has no time zone of a process")
def test_the_day_of_a_waiver_is_that_of_utc_wherever_the_gate_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any hour it is another day 14 hours to the east, or 12 hours to the west."""
    waivers, today = tmp_path / "waivers.toml", dt.datetime.now(tz=dt.UTC).date()
    text = f'schema = 1\n[[waiver]]\nfinding = "{WAIVED}"\nowner = "me"\nreason = "r"\n'
    for zone, last, status in (("EAST-14", today, 0), ("WEST+12", today - dt.timedelta(days=1), 1)):
        waivers.write_text(f"{text}expires = {last}\n")
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            found = judge_run(run_of(BAD), waivers=waivers).exit_status
        time.tzset()
        assert found == status, zone


def test_what_is_just_enough_is_enough() -> None:
    """Pairs, people, bounds, clean errors and waivers, each at its limit and one step beyond it."""
    bound = Rate(0, PAIRS).upper_bound()
    people = {"dodging": 100, "impersonation": 200, "group": 200}
    goals = {g: replace(r, pairs=100, people=people[g], max_asr=bound) for g, r in POLICY.goals.items()}
    just = replace(POLICY, goals=goals, max_fnmr=bound, max_fmr=bound, waivers=1)
    assert verdict(run_of(GOOD), just) == Verdict("pass", (), ())
    assert verdict(run_of(GOOD), just, waivers=[waiver()]).status == "pass"
    for key, step, code in (("pairs", 1, "few-pairs"), ("people", 1, "few-people"), ("max_asr", -1e-9, "few-pairs")):
        beyond = {g: replace(r, **{key: getattr(r, key) + step}) for g, r in goals.items()}
        found = verdict(run_of(GOOD), replace(just, goals=beyond))
        assert [(r.code, r.status) for r in found.reasons] == [(code, "insufficient")] * 2, key
    for key in ("max_fnmr", "max_fmr"):
        found = verdict(run_of(GOOD), replace(just, **{key: bound - 1e-9}))  # type: ignore[arg-type]
        assert [(r.code, r.status) for r in found.reasons] == [("few-pairs", "insufficient")], key
    assert "waiver-too-many" in codes(verdict(run_of(GOOD), replace(just, waivers=0), waivers=[waiver()]))


def test_a_reason_says_what_it_is_about() -> None:
    def texts(run: Run, **others: object) -> list[str]:
        return [reason.text for reason in verdict(run, **others).reasons]  # type: ignore[arg-type]

    (risk,) = texts(run_of(fell(MINIMAL, impersonated=20)))
    assert risk == (
        "medium: through mean3, 20 of 100 pairs are taken for somebody else within RMS <= 2.15/255 "
        "(upper bound 27.7 %): deepfool/perfect 20; the policy allows an upper bound of 10 %"
    )
    near = verdict(run_of(fell(MINIMAL, dodged=7))).reasons
    assert [(r.code, r.findings) for r in near] == [("few-pairs", ("deepfool/perfect/mean3/dodging",))]
    (missing,) = texts(run_of([MINIMAL, BUDGETED, QUERY]))
    assert missing == (
        "mean3, impersonation and dodging: no transfer attack that is evidence within RMS <= 2.15/255 "
        "(no such attack was run)"
    )
    assert texts(run_of(GOOD, wrong=range(100, 110))) == ["mean3: clean FMR 10/100 is above 5 %"]
    assert texts(run_of(GOOD, wrong=range(100, 103))) == [
        "mean3: clean FMR 3/100 has an upper bound of 7.6 %, which is above 5 %"
    ]


def test_a_waiver_of_what_is_not_in_the_run_names_what_was_meant() -> None:
    for finding, hint in ((WAIVED[:-1], f"did you mean {WAIVED}?"), ("x", "remove the waiver")):
        (reason,) = verdict(run_of(GOOD), waivers=[waiver(finding)]).reasons
        assert reason.text.endswith(hint)
        assert reason.findings == (finding,)
    found = verdict(run_of(GOOD), waivers=[waiver(), waiver("x")])
    assert [(r.code, r.findings) for r in found.waived] == [("risk", (WAIVED,))]
    for days in (-1, 181):
        (reason,) = verdict(run_of(GOOD), waivers=[waiver(days=days)]).reasons
        assert reason.findings == (WAIVED,)
