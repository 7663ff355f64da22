"""Formats must say what the verdict says, and nothing that a run is called may act in the reader's browser or CI."""

from __future__ import annotations

import datetime as dt
import html
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from junitparser import JUnitXml
from pydantic import BaseModel
from rich.console import Console
from sarif_pydantic import Sarif

from tests.risk.runs import Told, told_run
from tests.risk.test_gate import GOOD
from toolkit.audit.plan import Unavailable
from toolkit.audit.results.optimality import Optimality
from toolkit.audit.results.outcomes import Run
from toolkit.report.assessment import print_assessment
from toolkit.report.risk import print_comparison, print_findings, print_overall, print_verdict, print_worst
from toolkit.report.write import choose_formats
from toolkit.risk.compare import compare_runs
from toolkit.risk.findings import Picture, Reason, Report, Verdict
from toolkit.risk.gate import judge
from toolkit.risk.policy import find_policy
from toolkit.risk.rate import rate
from toolkit.risk.waivers import Waiver
from toolkit.statistics.tries import HitRate

POLICY = find_policy("access-control")
TODAY = dt.date(2030, 5, 17)
ALL = choose_formats(["terminal", "html", "markdown", "sarif", "junit", "json"])
HIGH = "deepfool/perfect/mean3/impersonation"
SCENARIOS = [
    Told("deepfool", "perfect", "none", dodged=30, impersonated=30),
    Told("deepfool", "zero", "mean3", dodged=2),
    Told("deepfool", "perfect", "mean3", dodged=20, impersonated=25),
    Told("square", "query", "mean3", dodged=4, queries=300),
]


# What the second scenario cannot show, and what fell to the others together.
WHY_NOT = "its probes lie on the boundary of what the attacker knows, and do not spend the budget"
WORST = "25 of 30 pairs are taken for somebody else within RMS <= 2.15/255 (upper bound 93.2 %): deepfool/perfect 25"


def report(run: Run | None = None, *, waived: bool = False) -> Report:
    run = told_run(SCENARIOS, unavailable=[Unavailable("apgd", "no gradients")]) if run is None else run
    risk = rate(run, POLICY)
    blamed = Reason("risk", "high: it falls", (HIGH,))
    missing = Reason("incomplete", "apgd was not run", (), "insufficient")
    verdict = Verdict("insufficient", (missing,), (blamed,)) if waived else Verdict("fail", (blamed, missing), ())
    return Report(run, risk, verdict)


def written(of: Report, folder: Path) -> dict[str, str]:
    """What each format says, by its file; the files are in `folder` for readers that take files."""
    assert len(ALL) == 5
    for one in ALL:
        (folder / one.file).write_text(one.render(of), encoding="utf-8")
    return {one.file: (folder / one.file).read_text(encoding="utf-8") for one in ALL}


def test_every_format_says_the_verdict_and_what_was_not_run(tmp_path: Path) -> None:
    texts = written(report(), tmp_path)
    for name, text in texts.items():
        assert HIGH in text or name == "report.junit.xml", name
        assert "apgd" in text, name
    assert "Gate: FAIL" in texts["report.html"]
    assert "Gate: FAIL" in texts["report.md"]
    assert json.loads(texts["risk.json"])["verdict"]["status"] == "fail"
    assert json.loads(texts["report.sarif"])["runs"][0]["properties"]["verdict"] == "fail"


def strings(value: object) -> Iterator[str]:
    """All texts in a JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def words(texts: dict[str, str]) -> dict[str, str]:
    """What a reader of each format reads."""
    junit = ET.fromstring(texts["report.junit.xml"])
    told = {name: html.unescape(texts[name]) for name in ("report.html", "report.md")}
    told |= {name: "\n".join(strings(json.loads(texts[name]))) for name in ("report.sarif", "risk.json")}
    told["report.junit.xml"] = "\n".join(v for e in junit.iter() for v in (e.text or "", *e.attrib.values()))
    assert set(told) == set(texts)
    return told


def test_every_format_says_the_worst_case_and_what_shows_nothing(tmp_path: Path) -> None:
    told = words(written(report(), tmp_path))
    for name, text in told.items():
        assert WHY_NOT in text, name
        assert WORST in text or name == "report.junit.xml", name
    assert "| mean3, impersonation | critical | 25/30 | 93.2 % | budgeted, transfer |" in told["report.md"]
    assert "<strong>budgeted</strong>: no such attack was run" in told["report.html"]
    worst = json.loads((tmp_path / "risk.json").read_text())["risk"]["worst"][0]
    assert (worst["goal"], worst["within"]["successes"], worst["people"]) == ("impersonation", 25, 60)
    assert {met["evidence"]: bool(met["finding"]) for met in worst["met"]} == {
        "minimal": True, "budgeted": False, "query": True, "transfer": False,
    }  # fmt: skip


def waiver(finding: str, days: int = 30) -> Waiver:
    return Waiver(finding, "me", f"because of {finding}", TODAY + dt.timedelta(days=days))


def test_every_format_says_every_reason_and_every_waiver_that_holds(tmp_path: Path) -> None:
    """Also what is about a finding that this run does not have: there is no case that could fail for it."""
    before = told_run([*SCENARIOS, Told("pgd", "perfect", "mean3")])
    run = told_run(SCENARIOS, unavailable=[Unavailable("apgd", "no gradients")], generated=True, copies=2)
    risk = rate(run, POLICY)
    held, unknown, old = waiver(HIGH), waiver("pgd/perfect/mean3/dodgin"), waiver("square/query/mean3/dodging", -1)
    verdict = judge(run, risk, POLICY, TODAY, [held, unknown, old], before)
    expected = {"risk", "no-evidence", "few-pairs", "generated", "data", "incomplete", "baseline", "waiver-unknown"}
    assert {r.code for r in verdict.reasons} == {*expected, "waiver-expired"}
    assert [r.findings for r in verdict.waived] == [(HIGH,)]
    for name, text in words(written(Report(run, risk, verdict), tmp_path)).items():
        for reason in (*verdict.reasons, *verdict.waived):
            assert reason.text in text, f"{name}: {reason}"


@pytest.mark.parametrize("name", ["pgd/perfect/mean3/dodging", "square/query/mean3/dodging"])
def test_junit_fails_where_the_gate_fails_whatever_the_reason(tmp_path: Path, name: str) -> None:
    """A waiver of a finding that is not there is a reason to fail, and no test case is of that finding."""
    good = told_run(GOOD, pairs=100)
    risk = rate(good, POLICY)
    verdict = judge(good, risk, POLICY, TODAY, [waiver(name, 30 if name.startswith("pgd") else 999)])
    assert verdict.status == "fail"
    top = ET.fromstring(written(Report(good, risk, verdict), tmp_path)["report.junit.xml"])
    assert len(top.findall("testsuite/testcase/failure")) == 1


def test_junit_fails_what_is_blamed_and_skips_what_is_not_known(tmp_path: Path) -> None:
    top = ET.fromstring(written(report(), tmp_path)["report.junit.xml"])
    cases = {case.get("name"): case for case in top.iter("testcase")}
    assert cases[HIGH].find("failure") is not None
    assert cases["apgd was not run"].find("skipped") is not None
    for suite in top:
        assert int(suite.get("tests", "")) == len(suite)
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
    waived = ET.fromstring(written(report(waived=True), tmp_path)["report.junit.xml"])
    case = next(case for case in waived.iter("testcase") if case.get("name") == HIGH)
    assert case.find("failure") is None
    assert case.find("skipped") is not None, "what is waived has not passed"
    few = report(told_run(SCENARIOS, pairs=3))
    unknown = [f.id for f in few.risk.findings if f.severity == "unknown"]
    cases = {c.get("name"): c for c in ET.fromstring(written(few, tmp_path)["report.junit.xml"]).iter("testcase")}
    assert unknown
    assert all(cases[name].find("skipped") is not None for name in unknown)


def test_sarif_has_a_level_a_fingerprint_and_suppressions(tmp_path: Path) -> None:
    (run,) = json.loads(written(report(waived=True), tmp_path)["report.sarif"])["runs"]
    by_id = {r["partialFingerprints"]["sixpixels/finding/v1"]: r for r in run["results"]}
    assert len(by_id) == len(run["results"]) == 2 * len(SCENARIOS)
    assert by_id[HIGH]["level"] == "error"
    assert [s["kind"] for s in by_id[HIGH]["suppressions"]] == ["external"]
    assert all("suppressions" not in r for name, r in by_id.items() if name != HIGH)
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[r["ruleIndex"]]["id"] == r["ruleId"] for r in run["results"])
    assert run["invocations"][0]["executionSuccessful"] is False, "an attack could not be run"
    assert run["artifacts"][0]["hashes"]["sha-256"] == "0" * 64


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def hostile(address: str) -> Report:
    """A run whose every name is an attack on its reader."""
    bad = f'</style><script src="{address}/s"></script><img src={address}/i onerror=alert(1)>"\'|`@all\x00\x1b[31m'
    run = told_run(
        [replace(s, profile=s.profile if s.profile == "none" else bad) for s in SCENARIOS], profiles=("none", bad)
    )
    a = replace(run.assessment, run=bad, pairs_source=bad, caveats=(bad,), left_out=(bad,))
    a = replace(a, target=replace(a.target, name=bad, model=bad), unavailable=(Unavailable(bad, bad),))
    made = report(replace(run, assessment=a))
    return replace(made, pictures=(Picture(bad, b"\x89PNG"),))


def test_nothing_that_a_run_is_called_becomes_markup(tmp_path: Path) -> None:
    texts = written(hostile("http://127.0.0.1:9"), tmp_path)
    page = Elements()
    page.feed(texts["report.html"])
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        assert (attributes.get("src") or "data:").startswith("data:"), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert "default-src 'none'" in texts["report.html"]
    assert "<script" not in texts["report.md"]
    assert "@all" not in texts["report.md"], "nobody is called by a report"
    ET.fromstring(texts["report.junit.xml"])
    json.loads(texts["report.sarif"])


def chromium(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium here")
    quiet = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    flags = [
        f"--{flag}" for flag in (*quiet.split(), "disable-component-update", "disable-sync", "enable-logging=stderr")
    ]
    return subprocess.run([found, *flags, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_a_real_browser_shows_it_without_an_error_and_without_a_request(tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        written(hostile(f"http://127.0.0.1:{server.server_port}"), tmp_path)
        page = (tmp_path / "report.html").as_uri()
        done = chromium(f"--user-data-dir={tmp_path / 'user'}", "--window-size=390,800", "--dump-dom", page)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert "Overall risk" in done.stdout
    assert done.stdout.count("<svg") > 3
    assert "CONSOLE" not in done.stderr, done.stderr
    assert asked == []


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_cuts_nothing_off(width: int, encoding: str, tmp_path: Path) -> None:
    made = report()
    with (tmp_path / "page").open("w", encoding=encoding) as stream:
        console = Console(file=stream, width=width, highlight=False, no_color=True, legacy_windows=False)
        print_overall(made.risk, console)
        print_worst(made.risk, console)
        print_findings(made.risk, console)
        print_verdict(made.verdict or Verdict("pass", (), ()), console)
        print_comparison(compare_runs([made.run, made.run], POLICY), console)
    lines = (tmp_path / "page").read_text(encoding=encoding).splitlines()
    assert max(map(len, lines)) <= width
    page = "".join(" ".join(lines).split())
    for said in (
        HIGH,
        "OVERALLCRITICAL",
        "gateFAIL",
        "apgdwasnotrun",
        WHY_NOT,
        WORST,
        made.risk.next_steps[0].replace(" ", ""),
    ):
        assert said.replace(" ", "") in page.replace("|", "").replace("│", ""), said
    assert "…" not in page


def test_sarif_is_what_others_take_it_for(tmp_path: Path) -> None:
    """Read by an independent model of SARIF 2.1.0, which knows every property that we write but one."""
    read = Sarif.model_validate_json(written(report(), tmp_path)["report.sarif"])
    # Section 3.20.21 of the standard.
    assert set(_unknown(read)) == {".runs[].invocations[].toolExecutionNotifications"}
    results, rules = read.runs[0].results or [], read.runs[0].tool.driver.rules or []
    assert {result.rule_id for result in results} <= {rule.id for rule in rules}
    assert [rules[result.rule_index or 0].id for result in results] == [result.rule_id for result in results]


def _unknown(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _unknown(item, f"{path}[]")


def test_junit_counts_what_others_count_in_it(tmp_path: Path) -> None:
    text = written(report(waived=True), tmp_path)["report.junit.xml"]
    said, counted = JUnitXml.fromstring(text.encode()), JUnitXml.fromstring(text.encode())
    counted.update_statistics()
    for number in ("tests", "failures", "errors", "skipped"):
        assert getattr(said, number) == getattr(counted, number), number
    for own, again in zip(said, counted, strict=True):
        assert (own.name, own.tests, own.failures) == (again.name, again.tests, again.failures)
    assert counted.tests


def test_optimality_is_in_every_report_and_fits_the_terminal(tmp_path: Path) -> None:
    run = told_run(SCENARIOS)
    measured = (
        Optimality("deepfool", "perfect", "mean3", "dodging", "l2", 0.954),
        Optimality("deepfool", "perfect", "mean3", "impersonation", "l2", None),
        Optimality("square", "query", "none", "dodging", "linf", 1.0),
    )
    run = replace(run, assessment=replace(run.assessment, optimality=measured))
    texts = written(report(run), tmp_path)
    assert "| deepfool | mean3 | perfect | L2 | 0.95 | - |" in texts["report.md"]
    assert "<td>0.95</td><td>-</td>" in texts["report.html"]
    text = StringIO()
    print_assessment(run.assessment, Console(file=text, width=80), [])
    lines = text.getvalue().splitlines()
    (row,) = (line for line in lines if "0.95" in line)
    assert row.split() == ["deepfool", "mean3", "perfect", "L2", "0.95", "-"]
    assert max(map(len, lines)) <= 80
    # Without a profile there is nothing to know.
    assert "square    none              Linf     1.00          -" in text.getvalue()


def test_three_intervals_of_tries_fit_beside_the_longest_names() -> None:
    run = told_run([Told("momentum-l2", "perfect", "randomized", dodged=30)], profiles=("none", "randomized"))
    sure = tuple(HitRate(tries, 1.0, 0.34, 1.0) for tries in (1, 3, 10))
    scenarios = tuple(replace(s, presented=10, hit_at=sure) for s in run.assessment.scenarios)
    console = Console(file=StringIO(), width=80)
    print_assessment(replace(run.assessment, scenarios=scenarios), console, [])
    (line,) = [line for line in console.file.getvalue().splitlines() if "dodge" in line and "100[34,100]" in line]  # type: ignore[attr-defined]
    assert line.count("100[34,100]") == 3
    assert "momentum-l2  randomized" in line
