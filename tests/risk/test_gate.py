"""Nobody passes the gate by testing less."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.risk.runs import Told, told_run, without, write
from toolkit.audit.outcomes import Run
from toolkit.audit.plan import Unavailable
from toolkit.audit.sanity import Check
from toolkit.risk.findings import Verdict
from toolkit.risk.gate import judge
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate
from toolkit.risk.waivers import Waiver

ROOT = Path(__file__).resolve().parents[2]
POLICY = find_policy("access-control")
TODAY = dt.date(2030, 5, 17)
GOOD = [Told("deepfool", "zero", "mean3"), Told("deepfool", "perfect", "mean3"), Told("square", "query", "mean3")]
BAD = [Told("deepfool", "perfect", "mean3", impersonated=30)]
WAIVED = "deepfool/perfect/mean3/impersonation"


def verdict(run: Run, policy: Policy = POLICY, **others: object) -> Verdict:
    chosen = others.pop("chosen", ())
    return judge(run, rate(run, policy, chosen), policy, TODAY, **others)  # type: ignore[arg-type]


def codes(of: Verdict) -> set[str]:
    return {reason.code for reason in of.reasons}


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
    command = [sys.executable, ROOT / "cli.py", "gate", *arguments]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd=ROOT)


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
    assert gate(run, "--deployed", "none").returncode == 3
    assert gate(run, "--policy", "watchlist", "--baseline", write(tmp_path / "old", GOOD)).returncode == 1
    assert gate(run, "--format", "nonsense").returncode == 4
