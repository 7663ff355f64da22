"""Nobody passes the gate by testing less."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import ROOT, sixpixels
from tests.risk.runs import Told, told_run, without, write
from toolkit.audit.plan import Unavailable
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.outcomes import Run
from toolkit.risk.findings import Reason, Verdict
from toolkit.risk.gate import judge, judge_run
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate
from toolkit.risk.waivers import Waiver
from toolkit.statistics.intervals import Rate

POLICY = find_policy("access-control")
TODAY = dt.date(2030, 5, 17)
GOOD = [Told("deepfool", "zero", "mean3"), Told("deepfool", "perfect", "mean3"), Told("square", "query", "mean3")]
BAD = [Told("deepfool", "perfect", "mean3", impersonated=30)]
WAIVED = "deepfool/perfect/mean3/impersonation"


def verdict(run: Run, policy: Policy = POLICY, **others: object) -> Verdict:
    chosen = others.pop("chosen", ())
    found = judge(run, rate(run, policy, chosen), policy, TODAY, **others)  # type: ignore[arg-type]
    assert all(isinstance(reason.text, str) for reason in (*found.reasons, *found.waived)), "every reason is told"
    return found


def codes(of: Verdict) -> set[str]:
    return {reason.code for reason in of.reasons}


def about(of: Verdict) -> set[tuple[str, str | None, str]]:
    return {(reason.code, reason.finding, reason.status) for reason in of.reasons}


def waiver(until: dt.date, finding: str = WAIVED) -> Waiver:
    return Waiver(finding, "me", "a second factor is asked for", until)


def test_a_good_run_passes_and_a_bad_one_fails() -> None:
    assert verdict(told_run(GOOD)) == Verdict("pass", (), ())
    assert verdict(told_run(BAD)).status == "fail"


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (told_run([]), "not-audited"),
        (told_run(GOOD, eligible=0), "few-pairs"),
        (told_run(GOOD, pairs=5), "few-pairs"),
        (told_run(GOOD[:1]), "no-adaptive"),
        (told_run(GOOD, unavailable=[Unavailable("apgd", "no gradients")]), "incomplete"),
        (told_run(GOOD, checks=[Check("gradient", "mean3", False, "")]), "invalid"),
        (told_run([Told("deepfool", "perfect", "none")], profiles=("none", "mean3")), "not-audited"),
    ],
    ids=["nothing", "nobody eligible", "few", "oblivious", "incomplete", "invalid", "another profile"],
)
def test_what_was_not_tested_is_not_passed(run: Run, code: str) -> None:
    found = verdict(run)
    assert found.status == "insufficient"
    assert code in codes(found)


def test_what_a_policy_asks_for_must_be_there() -> None:
    run = told_run(GOOD)
    assert codes(verdict(run, replace(POLICY, attacks=("apgd",)))) == {"no-attack"}
    assert codes(verdict(run, POLICY, chosen=["red30"])) == {"not-audited"}
    assert codes(verdict(run, replace(POLICY, profiles=("mean3", "n2c")))) == {"not-audited"}


def test_clean_errors_have_limits_that_pairs_must_be_able_to_show() -> None:
    limited = replace(POLICY, max_fnmr=0.1)
    assert codes(verdict(told_run(GOOD, wrong=[0, 1, 2, 3]), limited)) == {"clean-error"}
    assert verdict(told_run(GOOD, wrong=[0, 1, 2]), limited).status == "pass"
    assert codes(verdict(told_run(GOOD, pairs=20), limited)) == {"few-pairs"}


def test_a_waiver_holds_to_its_last_day_and_for_its_finding_alone() -> None:
    run = told_run(BAD)
    held = verdict(run, waivers=[waiver(TODAY)])
    assert held.status == "pass"
    assert [r.finding for r in held.waived] == [WAIVED]
    over = verdict(run, waivers=[waiver(TODAY - dt.timedelta(days=1))])
    assert over.status == "fail"
    assert codes(over) == {"risk", "waiver-expired"}
    misspelled = verdict(run, waivers=[waiver(TODAY, WAIVED.replace("mean3", "mean33"))])
    assert misspelled.status == "fail"
    assert any(f"did you mean {WAIVED}?" in reason.text for reason in misspelled.reasons)
    # An expired one fails even where nothing is left to waive: somebody has to look at it.
    assert verdict(told_run(GOOD), waivers=[waiver(TODAY - dt.timedelta(days=1))]).status == "fail"
    few = verdict(told_run(GOOD, pairs=5), waivers=[waiver(TODAY)])
    assert few.status == "insufficient", "what was not tested cannot be waived"


def test_a_regression_is_told_by_the_paired_test() -> None:
    before = told_run(GOOD)
    worse = [GOOD[0], replace(GOOD[1], dodged=12), GOOD[2]]
    assert verdict(told_run(worse)).status == "pass", "it is no high risk"
    found = verdict(told_run(worse), baseline=before)
    assert codes(found) == {"regression"}
    assert found.status == "fail"
    assert verdict(told_run([GOOD[0], replace(GOOD[1], dodged=3), GOOD[2]]), baseline=before).status == "pass"
    assert verdict(told_run(GOOD), baseline=told_run(worse)).status == "pass", "better is no regression"
    assert codes(verdict(told_run(GOOD, wrong=list(range(12))), baseline=before)) >= {"regression"}


def test_a_baseline_with_other_pairs_or_more_attacks_shows_nothing() -> None:
    assert codes(verdict(told_run(GOOD), baseline=told_run(GOOD, first=1000))) == {"baseline"}
    assert codes(verdict(told_run(GOOD[:2]), baseline=told_run(GOOD))) == {"baseline"}
    weaker = told_run(GOOD)
    attacks = tuple((name, (("budget", 3),)) for name, _ in weaker.assessment.attacks)
    weaker = replace(weaker, assessment=replace(weaker.assessment, attacks=attacks))
    found = verdict(weaker, baseline=told_run(GOOD))
    assert codes(found) == {"baseline"}, "weaker attacks that break less are no progress"
    assert all("other parameters" in reason.text for reason in found.reasons)


@given(
    fell=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=3),
    pairs=st.integers(0, 30),
    gone=st.sets(st.integers(0, 2)),
)
def test_testing_less_never_helps(fell: list[tuple[int, int]], pairs: int, gone: set[int]) -> None:
    full = told_run([replace(t, dodged=d, impersonated=i) for t, (d, i) in zip(GOOD, fell, strict=True)])
    if verdict(full, baseline=full).status == "pass":
        return
    less = full
    for scenario in sorted(gone, reverse=True):
        less = without(less, scenario)
    assert verdict(less, baseline=full).status != "pass"
    fewer = told_run(
        [replace(t, dodged=min(d, pairs), impersonated=min(i, pairs)) for t, (d, i) in zip(GOOD, fell, strict=True)],
        eligible=pairs,
    )
    if pairs == 0:
        assert verdict(fewer).status != "pass"


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
        (lambda run: write(run, GOOD, eligible=0), 3),
        (lambda run: write(run, BAD), 1),
    ],
    ids=["whole", "interrupted", "outcomes lost", "damaged", "no scenario", "nobody eligible", "bad"],
)
def test_the_command_passes_a_whole_run_alone(tmp_path: Path, damage: Callable[[Path], object], status: int) -> None:
    run = write(tmp_path / "run", GOOD)
    damage(run)
    done = gate(run)
    assert done.returncode == status, done.stdout + done.stderr
    told = gate(run, "--json")
    assert told.returncode == status, "the exit status is the same in every format"
    if status in (0, 1, 3):
        assert json.loads(told.stdout)["verdict"]["status"] == {0: "pass", 1: "fail", 3: "insufficient"}[status]


def test_the_command_reads_policies_waivers_and_baselines(tmp_path: Path) -> None:
    run = write(tmp_path / "run", BAD)
    waivers = tmp_path / "waivers.toml"
    text = f'schema = 1\n[[waiver]]\nfinding = "{WAIVED}"\nowner = "me"\nreason = "r"\nexpires = '
    waivers.write_text(text + "2999-01-01\n")
    assert gate(run, "--waivers", waivers).returncode == 0
    waivers.write_text(text + "2001-01-01\n")
    assert gate(run, "--waivers", waivers).returncode == 1
    assert gate(run, "--policy", "watchlist").returncode == 0
    assert gate(run, "--policy", "watchlst").returncode == 4
    assert gate(tmp_path / "nowhere", "--policy", "watchlst").returncode == 4, "a usage error comes first"
    assert gate(run, "--deployed", "none").returncode == 3
    assert gate(run, "--policy", "watchlist", "--baseline", write(tmp_path / "old", GOOD)).returncode == 1
    assert gate(run, "--format", "nonsense").returncode == 4


def test_each_reason_has_its_status_and_its_finding() -> None:
    assert about(verdict(told_run(BAD))) == {("risk", WAIVED, "fail")}
    assert about(verdict(told_run([]))) == {("not-audited", None, "insufficient")}
    assert about(verdict(told_run(GOOD[:1]))) == {("no-adaptive", None, "insufficient")}
    assert about(verdict(told_run(GOOD, pairs=5))) == {("few-pairs", None, "insufficient")}
    unavailable = told_run(GOOD, unavailable=[Unavailable("apgd", "no gradients")])
    assert about(verdict(unavailable)) == {("incomplete", None, "insufficient")}
    doubted = told_run(GOOD[1:2], checks=[Check("gradient", "mean3", False, "")])
    assert about(verdict(doubted)) == {
        ("invalid", None, "insufficient"),
        ("unknown", "deepfool/perfect/mean3/dodging", "insufficient"),
    }
    old = waiver(TODAY - dt.timedelta(days=1), "fgsm/zero/mean3/dodging")
    assert about(verdict(told_run(GOOD), waivers=[old])) == {("waiver-expired", old.finding, "fail")}
    # A name that is like none is as wrong as one that is misspelled.
    strange = waiver(TODAY, "?")
    assert about(verdict(told_run(GOOD), waivers=[strange])) == {("waiver-unknown", "?", "fail")}
    before, after = told_run(GOOD), told_run([GOOD[0], replace(GOOD[1], dodged=12), GOOD[2]])
    regression = ("regression", "deepfool/perfect/mean3/dodging", "fail")
    assert about(verdict(after, baseline=before)) == {regression}
    assert about(verdict(told_run(GOOD[:2]), baseline=before)) == {
        ("baseline", "square/query/mean3/dodging", "insufficient"),
        ("baseline", "square/query/mean3/impersonation", "insufficient"),
    }


def test_a_failure_stands_before_what_is_missing() -> None:
    found = verdict(told_run([Told("deepfool", "zero", "mean3", impersonated=30)]))
    assert found.status == "fail"
    assert [reason.status for reason in found.reasons] == ["fail", "insufficient", "insufficient"]


def test_nothing_deployed_is_nothing_tested() -> None:
    assert about(verdict(told_run([], profiles=()))) == {("no-profile", None, "insufficient")}


def test_every_attack_of_the_policy_that_is_missing_is_told() -> None:
    found = verdict(told_run(GOOD), replace(POLICY, attacks=("pgd", "deepfool", "apgd")))
    assert [reason.code for reason in found.reasons] == ["no-attack", "no-attack"]
    assert ["apgd" in found.reasons[0].text, "pgd" in found.reasons[1].text] == [True, True]
    # An attack on another profile is none on this one.
    elsewhere = told_run([*GOOD, Told("pgd", "perfect", "none")])
    assert codes(verdict(elsewhere, replace(POLICY, attacks=("pgd",)))) == {"no-attack"}


def test_a_policy_need_not_ask_for_an_attacker_who_adapts() -> None:
    # So it is unknown whether the risk is low, and the findings themselves are.
    assert verdict(told_run(GOOD[:1]), replace(POLICY, adaptive=False)).status == "pass"


def test_each_goal_needs_its_own_pairs() -> None:
    run = told_run(GOOD, wrong=range(35, 60))
    assert [reason.code for reason in verdict(run).reasons] == ["few-pairs"]
    assert "impersonation" in verdict(run).reasons[0].text
    other = told_run(GOOD, wrong=range(25))
    assert [reason.code for reason in verdict(other).reasons] == ["few-pairs"]
    assert "dodging" in verdict(other).reasons[0].text


def test_what_could_just_be_shown_is_enough() -> None:
    shown = replace(POLICY, provable_asr=Rate(0, 30).upper_bound())
    assert verdict(told_run(GOOD), shown).status == "pass"
    assert codes(verdict(told_run(GOOD, pairs=29), shown)) == {"few-pairs"}
    limited = replace(POLICY, max_fnmr=Rate(0, 30).upper_bound(), max_fmr=Rate(0, 30).upper_bound())
    assert verdict(told_run(GOOD), limited).status == "pass"
    assert codes(verdict(told_run(GOOD, pairs=29), limited)) == {"few-pairs"}


def test_a_profile_that_is_not_deployed_decides_nothing() -> None:
    """The worst finding is of the bare verifier, and comes first."""
    bare = Told("deepfool", "perfect", "none", dodged=30, impersonated=30)
    assert verdict(told_run([bare, *GOOD])).status == "pass"
    run = told_run([bare, replace(BAD[0], impersonated=25)])
    assert rate(run, POLICY).findings[0].profile == "none"
    assert about(verdict(run)) == {("risk", WAIVED, "fail")}
    limited = replace(POLICY, max_fnmr=0.1)
    run = told_run(GOOD)
    worse = replace(run.assessment.clean[0], fnmr=Rate(30, 30))
    clean = (worse, run.assessment.clean[1])
    assert verdict(replace(run, assessment=replace(run.assessment, clean=clean)), limited).status == "pass"
    # Nor does it become worse, or need to be run again.
    before = told_run([replace(bare, dodged=0), *GOOD])
    assert verdict(told_run([bare, *GOOD]), baseline=before).status == "pass"
    assert verdict(told_run(GOOD), baseline=before).status == "pass"
    after = [bare, GOOD[0], replace(GOOD[1], dodged=12), GOOD[2]]
    assert codes(verdict(told_run(after), baseline=before)) == {"regression"}


def test_a_finding_fails_from_the_severity_that_the_policy_names() -> None:
    run = told_run([Told("deepfool", "perfect", "mean3", dodged=3)])
    assert {f.goal: f.severity for f in rate(run, POLICY).findings} == {"dodging": "low", "impersonation": "medium"}
    assert verdict(run, replace(POLICY, fail_at="high")).status == "pass"
    assert about(verdict(run, replace(POLICY, fail_at="medium"))) == {("risk", WAIVED, "fail")}
    assert len(verdict(run, replace(POLICY, fail_at="low")).reasons) == 2


def test_unknown_is_no_failure_but_never_a_pass() -> None:
    # With five pairs dodging is unknown; impersonation does so much harm that it is medium whatever was seen.
    found = verdict(told_run(GOOD[1:2], pairs=5), replace(POLICY, fail_at="note"))
    assert about(found) == {("risk", WAIVED, "fail"), ("few-pairs", None, "insufficient")}


def test_false_matches_have_a_limit_too() -> None:
    limited = replace(POLICY, max_fmr=0.1)
    assert codes(verdict(told_run(GOOD, wrong=[30, 31, 32, 33]), limited)) == {"clean-error"}
    assert verdict(told_run(GOOD, wrong=[0, 1, 2, 3]), limited).status == "pass"
    run = told_run(GOOD)
    untried = tuple(replace(clean, fmr=Rate(0, 0)) for clean in run.assessment.clean)
    none = replace(run, assessment=replace(run.assessment, clean=untried))
    assert codes(verdict(none, limited)) == {"few-pairs"}, "no pair is no error, and shows nothing"


def test_what_became_worse_cannot_be_waived() -> None:
    after = told_run([GOOD[0], replace(GOOD[1], impersonated=12), GOOD[2]])
    found = verdict(after, replace(POLICY, fail_at="critical"), baseline=told_run(GOOD), waivers=[waiver(TODAY)])
    assert about(found) == {("regression", WAIVED, "fail")}
    assert not found.waived


def test_a_waiver_takes_away_its_finding_alone() -> None:
    both = told_run([*BAD, Told("pgd", "perfect", "mean3", impersonated=30)])
    found = verdict(both, waivers=[waiver(TODAY)])
    assert [reason.finding for reason in found.reasons] == [WAIVED.replace("deepfool", "pgd")]
    assert [reason.finding for reason in found.waived] == [WAIVED]
    assert all(isinstance(reason, Reason) for reason in found.waived)


def test_six_common_pairs_are_the_fewest_that_can_tell() -> None:
    lenient = replace(POLICY, provable_asr=1.0, fail_at="critical")
    assert verdict(told_run(GOOD, pairs=6), lenient, baseline=told_run(GOOD, pairs=6)).status == "pass"
    five = verdict(told_run(GOOD, pairs=5), lenient, baseline=told_run(GOOD, pairs=5))
    assert codes(five) == {"baseline"}
    clean = {"clean/mean3/fnmr", "clean/mean3/fmr"}
    assert {reason.finding for reason in five.reasons} == {f.id for f in rate(told_run(GOOD), POLICY).findings} | clean


def test_pairs_that_the_baseline_turned_away_are_no_regression() -> None:
    """Twelve genuine pairs were decided wrongly in the baseline: only now can they be attacked at all."""
    now = [GOOD[0], replace(GOOD[1], dodged=12), GOOD[2]]
    assert verdict(told_run(now), baseline=told_run(now, wrong=range(12))).status == "pass"


def test_only_the_attack_that_changed_does_not_compare() -> None:
    before, after = told_run(GOOD), told_run([GOOD[0], replace(GOOD[1], dodged=12), replace(GOOD[2], dodged=12)])
    attacks = tuple((n, (("budget", 9),) if n == "square" else p) for n, p in after.assessment.attacks)
    found = verdict(replace(after, assessment=replace(after.assessment, attacks=attacks)), baseline=before)
    assert about(found) == {
        ("regression", "deepfool/perfect/mean3/dodging", "fail"),
        ("baseline", "square/query/mean3/dodging", "insufficient"),
        ("baseline", "square/query/mean3/impersonation", "insufficient"),
    }


def test_a_run_is_judged_in_one_call(tmp_path: Path) -> None:
    good, bad = told_run(GOOD), told_run(BAD)
    assert judge_run(good).risk == rate(good, POLICY)
    assert judge_run(good).verdict == verdict(good)
    assert (judge_run(good).exit_status, judge_run(bad).exit_status) == (0, 1)
    watched = find_policy("watchlist")
    assert judge_run(bad, "watchlist").risk == judge_run(bad, watched).risk == rate(bad, watched)
    assert judge_run(bad, watched, deployed=["none"]).verdict == verdict(bad, watched, chosen=["none"])
    worse = told_run([GOOD[0], replace(GOOD[1], dodged=12), GOOD[2]])
    assert judge_run(worse).exit_status == 0
    assert judge_run(worse, baseline=good).verdict == verdict(worse, baseline=good)
    assert judge_run(worse, baseline=good).exit_status == 1
    waivers = tmp_path / "waivers.toml"
    waivers.write_text(f'schema = 1\n[[waiver]]\nfinding = "{WAIVED}"\nowner = "me"\nreason = "r"\nexpires = {TODAY}\n')
    assert judge_run(bad, waivers=waivers, today=TODAY).exit_status == 0
    assert judge_run(bad, waivers=str(waivers), today=TODAY + dt.timedelta(days=1)).exit_status == 1


def test_a_waiver_ends_by_the_calendar_in_utc(tmp_path: Path) -> None:
    today, waivers = dt.datetime.now(tz=dt.UTC).date(), tmp_path / "waivers.toml"
    for days, status in ((-2, 1), (2, 0)):
        text = f'[[waiver]]\nfinding = "{WAIVED}"\nowner = "me"\nreason = "r"\n'
        waivers.write_text(f"schema = 1\n{text}expires = {today + dt.timedelta(days=days)}\n")
        assert judge_run(told_run(BAD), waivers=waivers).exit_status == status


def test_a_run_that_became_no_worse_is_still_as_bad_as_it_is() -> None:
    assert about(verdict(told_run(BAD), baseline=told_run(BAD))) == {("risk", WAIVED, "fail")}
