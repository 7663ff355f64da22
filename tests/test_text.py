"""Names come from outside. Nothing that one is called may move a cursor, ring a bell, or turn a line around."""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands import refused, sixpixels
from tests.risk.runs import Told, told_run, write
from toolkit.audit.plan import Unavailable
from toolkit.audit.results.assessment import Assessment
from toolkit.commands.show import SafeConsole
from toolkit.errors import InputError
from toolkit.report.assessment import print_assessment
from toolkit.report.risk import print_comparison, print_judgement
from toolkit.report.write import choose_formats
from toolkit.risk.compare import compare_runs
from toolkit.risk.findings import Judgement, Reason, Report, Verdict
from toolkit.risk.policy import find_policy
from toolkit.risk.rate import rate
from toolkit.text import LONGEST, escaped, shown, visible, visible_lines

HOSTILE = "a\x1b[31mb\x07c\u202ed\u2066e\u200bf\u061cg\x9bh\u200fi\ufeffj\x00k\x7fl\ud800m\u2028n\rgate PASS"
POLICY = find_policy("access-control")


def acts(text: str) -> list[str]:
    """The characters of a text that a terminal, browser or editor would obey and not show."""
    return [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_what_cannot_be_seen_is_written_out() -> None:
    assert acts(HOSTILE)
    assert visible(HOSTILE) == (
        r"a\x1b[31mb\x07c\u202ed\u2066e\u200bf\u061cg\x9bh\u200fi\ufeffj\x00k\x7fl\ud800m n gate PASS"
    )
    assert visible("Zoë, 人, 한, ñ, naïve") == "Zoë, 人, 한, ñ, naïve"
    assert visible_lines("a\x1b\nb\n") == "a\\x1b\nb\n"
    assert escaped("<b>\x1b") == "&lt;b&gt;\\x1b"


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    for text in ("x" * 10_000, "\u202e" * 10_000, "\n" * 10_000, "\ud800" * LONGEST, "x" * LONGEST):
        line = shown(f"a.toml: {text}; rename it")
        assert len(line) <= LONGEST
        assert line.startswith("a.toml: ")
        assert line.endswith("; rename it")
        assert not acts(line)
        assert shown(line) == line
    assert shown("x" * LONGEST) == "x" * LONGEST


def test_every_message_of_ours_is_one_short_line_that_does_nothing() -> None:
    error = InputError(f"{HOSTILE * 100}: is wrong; mend it")
    assert len(str(error)) <= LONGEST
    assert not acts(str(error))
    assert str(error).endswith("mend it")


def hostile_run() -> Report:
    """A run in which everything that has a name has a hostile one."""
    name = HOSTILE
    run = told_run(
        [
            Told("square", "query", name, dodged=4, queries=300),
            Told("deepfool", "partial", name, 3, 20, known=name + "2"),
        ],
        profiles=(name, name + "2"),
        unavailable=[Unavailable(name, name)],
    )
    a = run.assessment
    hostile: Assessment = replace(
        a, run=name, pairs_source=name, left_out=(name,), caveats=(name,), worst=name, suite="paper",
        target=replace(a.target, name=name, model=name, provider=name, onnxruntime=name),
        attacks=((name, ((name, name),)), *a.attacks),
        checks=tuple(replace(c, about=name, detail=name) for c in a.checks),
    )  # fmt: skip
    run = replace(run, assessment=hostile)
    risk = replace(rate(run, POLICY), policy=name, use_case=name)
    reason = Reason("risk", f"{name}, accepted by {name} because {name}", risk.findings[0].id)
    return Report(run, risk, Verdict("fail", (reason, Reason("incomplete", name)), (reason,)))


@pytest.mark.parametrize("name", [one.name for one in choose_formats(["html", "markdown", "sarif", "junit", "json"])])
def test_no_name_acts_in_any_format(name: str) -> None:
    (one,) = choose_formats([name])
    text = one.render(hostile_run())
    text.encode()
    assert not acts(text)
    assert "gate PASS" in text
    assert "\ngate PASS" not in text
    if name == "sarif":  # what a page shows that read it
        assert not acts(json.dumps(json.loads(text), ensure_ascii=False))


@pytest.mark.parametrize("width", [40, 80, 400])
def test_no_name_acts_in_the_terminal(width: int) -> None:
    report = hostile_run()
    page = SafeConsole(width=width, record=True, file=open(os.devnull, "w"), color_system=None)  # noqa: SIM115, PTH123
    judgement = Judgement(report.risk, report.verdict)
    print_judgement(judgement, [Path(HOSTILE)], page)
    print_assessment(report.run.assessment, page, [Path(HOSTILE)])
    print_comparison(compare_runs([report.run, report.run]), page)
    text = page.export_text()
    assert not acts(text)
    assert "x1b" in text


def test_no_name_acts_in_an_error_or_a_list(tmp_path: Path) -> None:
    done = sixpixels("gate", tmp_path / HOSTILE.replace("\0", "").replace("\ud800", ""))
    refused(done, "x1b")
    assert not acts(done.stderr)
    done = sixpixels("gate", tmp_path / ("x\u202e" * 4000))
    refused(done, "report.json")
    assert len(done.stderr) < LONGEST + 20
    done = sixpixels("audit", "--\x1b]0;title\x07")
    refused(done, "x1b", 4)
    assert not acts(done.stderr)


@pytest.mark.parametrize("command", ["gate", "report", "compare"])
def test_no_name_in_a_run_acts_on_the_command_line(tmp_path: Path, command: str) -> None:
    """JSON and SQLite can hold any name, so that the whole way is tested, from the files to the output."""
    name = HOSTILE.replace("\ud800", "")
    run = write(tmp_path / "run", [Told("square", "query", name, dodged=4)], profiles=(name,))
    arguments = [run, run] if command == "compare" else [run, "--format", "terminal,html,markdown,sarif,junit,json"]
    done = sixpixels(command, *arguments)
    assert done.returncode in (0, 1, 3), done.stderr
    assert not acts(done.stdout + done.stderr)
    assert "x1b" in done.stdout
    for path in run.glob("report.[hmsj]*"):
        assert path.name == "report.json" or not acts(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("kind", ["policy", "waivers", "profile", "manifest"])
def test_control_characters_in_our_toml_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.toml"
    for escape in ("\\u001b", "\\u202e", "\\u0007", "\\u0000", "\\u009b"):
        path.write_text(f'schema = 1\nname = "x{escape}y"\n[[waiver]]\nreason = "{escape}"\n')
        command = {
            "policy": ["gate", tmp_path, "--policy", path],
            "waivers": ["gate", write(tmp_path / "run", [Told("square", "query", "mean3")]), "--waivers", path],
            "profile": ["profiles", "check", path],
            "manifest": ["evaluate", path],
        }[kind]
        done = sixpixels(*command)
        refused(done, "control character")
        assert not acts(done.stderr)
