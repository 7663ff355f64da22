"""The suite of corruptions: counted by hand, compared with the bare verifier, and no evidence of attacks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy import stats

from tests.progress import Silent
from toolkit.audit.collect import InterruptedAuditError
from toolkit.audit.replaying.natural import NaturalDecisions, NaturalResult, natural_results
from toolkit.audit.request import Request, run_name
from toolkit.audit.results.assessment import Assessment
from toolkit.audit.results.outcomes import Run, read_run
from toolkit.audit.run import run_audit
from toolkit.audit.suites import NATURAL
from toolkit.commands.show import SafeConsole
from toolkit.documents import from_plain, to_json
from toolkit.errors import InputError
from toolkit.faces.corruptions import CORRUPTIONS, STRENGTHS
from toolkit.profiles.profile import find_profile
from toolkit.report.assessment import print_assessment
from toolkit.report.natural import natural_rows, natural_words
from toolkit.report.schemas import report_schema
from toolkit.report.write import write_reports
from toolkit.risk.gate import judge_run
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import holm

NONE, MEAN = find_profile("none"), find_profile("mean3")
GENUINE = np.repeat([True, False], 10)


@pytest.fixture
def natural(request_: Request) -> Request:
    return replace(request_, attacks=(), suite=NATURAL)


def finished(request: Request, folder: Path) -> Run:
    assessment = run_audit(request, folder, Silent())
    (folder / "report.json").write_text(to_json(assessment))
    return read_run(folder)


def decisions(profile: object, wrong: int, clean_wrong: int = 0) -> NaturalDecisions:
    """The first pairs of each kind are decided wrong, under each corruption at each strength."""
    place = np.tile(np.arange(10), 2)
    accepted = np.where(place < wrong, ~GENUINE, GENUINE)
    corrupted = {c.name: np.stack([accepted] * STRENGTHS, axis=1) for c in CORRUPTIONS}
    return NaturalDecisions(profile, np.where(place < clean_wrong, ~GENUINE, GENUINE), corrupted)  # type: ignore[arg-type]


def test_errors_are_counted_and_compared_with_the_bare_verifier() -> None:
    found = natural_results([decisions(NONE, 1), decisions(MEAN, 9, clean_wrong=2)], GENUINE)
    assert len(found) == 2 * len(CORRUPTIONS) * STRENGTHS * 2
    bare = [r for r in found if r.profile == "none"]
    assert {(r.rate, r.worse, r.better, r.p_value, r.p_adjusted) for r in bare} == {(Rate(1, 10), *[None] * 4)}
    mine = [r for r in found if r.profile == "mean3"]
    assert {(r.rate, r.lost, r.worse, r.better) for r in mine} == {(Rate(9, 10), Rate(7, 8), 8, 0)}
    p_value = stats.binomtest(8, 8).pvalue
    assert all(r.p_value == pytest.approx(p_value) for r in mine)
    np.testing.assert_allclose([r.p_adjusted or 0 for r in mine], holm([p_value] * len(mine)))
    assert {(r.corruption, r.strength, r.value) for r in mine} == {
        (c.name, i, v) for c in CORRUPTIONS for i, v in enumerate(c.values, 1)
    }


def test_without_the_bare_verifier_nothing_is_compared() -> None:
    found = natural_results([decisions(MEAN, 3)], GENUINE)
    assert {(r.worse, r.better, r.p_value) for r in found} == {(None, None, None)}


def test_one_kind_of_pairs_gives_one_kind_of_errors() -> None:
    one = decisions(NONE, 3)
    half = NaturalDecisions(NONE, one.clean[:10], {name: rows[:10] for name, rows in one.corrupted.items()})
    assert {r.kind for r in natural_results([half], GENUINE[:10])} == {"fnmr"}


def test_a_run_ends_without_attacks_and_the_gate_counts_nothing_of_it(natural: Request, tmp_path: Path) -> None:
    run = finished(natural, tmp_path)
    a = run.assessment
    jsonschema.validate(json.loads(to_json(a)), report_schema())
    assert (a.scenarios, a.worst, a.complete, a.valid) == ((), "No attack was run.", True, True)
    assert "no attack was run, so this run says nothing of attackers" in a.caveats
    assert {r.profile for r in a.natural} == {"none", "mean3"}
    judgement = judge_run(run, "access-control")
    assert judgement.risk.findings == ()
    assert judgement.exit_status != 0
    assert all(case.within == Rate(0, 0) and not any(m.finding for m in case.met) for case in judgement.risk.worst)


def test_a_harmless_corruption_changes_no_decision_and_a_total_one_does(natural: Request, tmp_path: Path) -> None:
    """The verifier of the fixture sees brightness: contrast and blur leave it, added brightness does not."""
    found = finished(natural, tmp_path).assessment.natural
    bare = {(r.corruption, r.strength, r.kind): r for r in found if r.profile == "none"}
    assert not bare["blur", 1, "fnmr"].lost.successes
    assert bare["brightness", 5, "fnmr"].lost.successes


def test_the_same_request_gives_the_same_bytes_and_reads_its_decisions_again(
    natural: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = to_json(finished(natural, tmp_path / "a").assessment)
    assert to_json(finished(natural, tmp_path / "a").assessment) == first
    other = to_json(finished(replace(natural, seed=4), tmp_path / "b").assessment)
    assert json.loads(other)["natural"] != json.loads(first)["natural"], "noise depends on the seed"
    monkeypatch.setattr("toolkit.audit.replaying.natural.corrupt", None)
    again = run_audit(natural, tmp_path / "a", Silent())
    assert again.natural == json_back(first)
    for path in (tmp_path / "a" / "probes").glob("*.decisions"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TypeError):
        run_audit(natural, tmp_path / "a", Silent())


def json_back(text: str) -> tuple[NaturalResult, ...]:
    assessment: Assessment = from_plain(Assessment, json.loads(text))
    return assessment.natural


def test_an_interrupted_run_goes_on(natural: Request, tmp_path: Path) -> None:
    whole = to_json(run_audit(natural, tmp_path / "whole", Silent()))

    class Stops(Silent):
        def stage(self, name: str, total: int) -> Callable[[int], None]:
            def done(_: int) -> None:
                if name.startswith("natural mean3"):
                    raise KeyboardInterrupt

            return done

    folder = tmp_path / "run" / "whole"
    with pytest.raises(InterruptedAuditError):
        run_audit(natural, folder, Stops())
    assert list((folder / "probes").glob("*.decisions"))
    assert to_json(run_audit(natural, folder, Silent())) == whole


def test_every_format_shows_what_cameras_do(natural: Request, tmp_path: Path) -> None:
    run = finished(natural, tmp_path)
    files = write_reports(run, ["html", "markdown", "sarif", "junit", "json"])
    texts = {path.name: path.read_text() for path in files}
    out = io.StringIO()
    print_assessment(run.assessment, SafeConsole(file=out, width=80), [])
    texts["terminal"] = out.getvalue()
    for name in ("report.html", "report.md", "terminal"):
        flat = " ".join(texts[name].split())
        assert "what cameras do" in flat.lower(), name
        assert all(c.name in flat for c in CORRUPTIONS), name
        assert "no evidence about attackers" in flat, name
        assert "mean3: no corruption" in flat or "mean3 costs robustness" in flat, name
    assert max(map(len, texts["terminal"].splitlines())) <= 80


def test_more_errors_than_bare_are_marked_and_said() -> None:
    genuine = np.repeat([True, False], 100)
    rows = np.stack([genuine] * STRENGTHS, axis=1)
    bare = NaturalDecisions(NONE, genuine, {c.name: rows for c in CORRUPTIONS})
    harmed = {c.name: rows & (c.name != "blur") for c in CORRUPTIONS}
    found = natural_results([bare, NaturalDecisions(MEAN, genuine, harmed)], genuine)
    (words,) = natural_words(found)
    assert words.startswith("mean3 costs robustness: more errors than bare with blur 3 (FNMR), blur 4 (FNMR), blur 6")
    marked = [row for row in natural_rows(found, "mean3") if "*" in "".join(row)]
    assert [row[0] for row in marked] == ["blur"] * 5
    assert marked[0][2].endswith("*")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corruption": "rain"}, "names the corruption 'rain'"),
        ({"strength": 6}, "not from 1 to 5"),
        ({"profile": "other"}, "names the profile 'other'"),
        ({"strength": 2}, "is there twice"),
    ],
)
def test_results_that_cannot_be_are_refused(
    natural: Request, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    assessment = finished(natural, tmp_path).assessment
    first, *others = assessment.natural
    changed = replace(assessment, natural=(replace(first, **change), *others))  # type: ignore[arg-type]
    (tmp_path / "report.json").write_text(to_json(changed))
    with pytest.raises(InputError, match=message):
        read_run(tmp_path)


def test_the_suite_is_another_run_and_an_attack_may_join_it(request_: Request, tmp_path: Path) -> None:
    both = replace(request_, suite=NATURAL)
    assert run_name(both) != run_name(request_)
    run = finished(both, tmp_path)
    assert run.assessment.natural
    assert run.assessment.scenarios
