"""The JUnit XML format, for CI servers.

Each profile is a test suite, and each finding a test case. Cases with unknown risk are skipped.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from toolkit.report.formats.base import Format
from toolkit.risk.findings import Finding, Reason, Report
from toolkit.text import LONGEST_SENTENCES, shown


def render(report: Report) -> str:
    """Render the report as JUnit XML."""
    top = ET.Element("testsuites", name="sixpixels")
    verdict = report.verdict
    blamed = {r.finding: r for r in verdict.reasons if r.finding} if verdict else {}
    waived = {r.finding for r in verdict.waived} if verdict else set()
    for profile, _ in report.run.assessment.profiles:
        mine = [f for f in report.risk.findings if f.profile == profile]
        cases = [_case(f, blamed.get(f.id), f.id in waived) for f in mine]
        _suite(top, profile, cases)
    whole = [_reason(r) for r in verdict.reasons if r.finding is None] if verdict else []
    whole += [_untested(f"{u.attack} was not run", u.reason) for u in report.run.assessment.unavailable]
    _suite(top, "the run as a whole", whole)
    ET.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(top, encoding="unicode") + "\n"


def _suite(top: ET.Element, name: str, cases: list[ET.Element]) -> None:
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": 0,
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    suite = ET.SubElement(top, "testsuite", {"name": _text(name), **{k: str(v) for k, v in counts.items()}})
    suite.extend(cases)


def _case(finding: Finding, reason: Reason | None, waived: bool) -> ET.Element:  # noqa: FBT001
    case = ET.Element("testcase", classname=_text(finding.profile), name=_text(finding.id))
    words = f"{finding.severity}: {finding.meaning}"
    if waived:
        ET.SubElement(case, "skipped", message=_text(f"waived: {words}"))
    elif reason is not None and reason.status == "fail":
        failure = ET.SubElement(case, "failure", message=_text(reason.text), type=reason.code)
        failure.text = _text(finding.advice)
    elif reason is not None or finding.severity == "unknown":
        ET.SubElement(case, "skipped", message=_text(words))
    ET.SubElement(case, "system-out").text = _text(f"{words} {finding.advice}")
    return case


def _reason(reason: Reason) -> ET.Element:
    case = ET.Element("testcase", classname="gate", name=_text(f"{reason.code}: {reason.text}"))
    tag = "failure" if reason.status == "fail" else "skipped"
    attributes = {"type": reason.code} if tag == "failure" else {}
    ET.SubElement(case, tag, {"message": _text(reason.text), **attributes})
    return case


def _untested(name: str, why: str) -> ET.Element:
    case = ET.Element("testcase", classname="run", name=_text(name))
    ET.SubElement(case, "skipped", message=_text(why))
    return case


def _text(text: str) -> str:
    """Make a text visible. XML 1.0 allows few control characters."""
    return shown(text, LONGEST_SENTENCES)


FORMAT = Format("junit", "report.junit.xml", render)
