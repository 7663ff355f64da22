"""The JUnit XML format, for CI servers.

Each profile is a test suite, and each finding a test case. What shows nothing, and what is waived, is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from toolkit.report.formats.base import Format
from toolkit.risk.findings import Finding, Reason, Report
from toolkit.text import LONGEST_SENTENCES, shown


def render(report: Report) -> str:
    """Render the report as JUnit XML."""
    top = ET.Element("testsuites", name="sixpixels")
    findings, verdict = report.risk.findings, report.verdict
    reasons, waived = (verdict.reasons, verdict.waived) if verdict else ((), ())
    for profile, _ in report.run.assessment.profiles:
        _suite(top, profile, [_case(f, reasons, waived) for f in findings if f.profile == profile])
    known = {f.id for f in findings}
    whole = [_reason(r) for r in reasons if not known.intersection(r.findings)]
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


def _case(finding: Finding, reasons: Sequence[Reason], waived: Sequence[Reason]) -> ET.Element:
    case = ET.Element("testcase", classname=_text(finding.profile), name=_text(finding.id))
    words = f"{finding.severity}: {finding.meaning}"
    mine = [reason for reason in reasons if finding.id in reason.findings]
    told = [f"waived: {reason.text}" for reason in waived if finding.id in reason.findings]
    told += [reason.text for reason in mine]
    failed = next((reason for reason in mine if reason.status == "fail"), None)
    if failed is not None:
        failure = ET.SubElement(case, "failure", message=_text("; ".join(told)), type=failed.code)
        failure.text = _text(finding.advice)
    elif told or finding.severity == "unknown" or finding.no_evidence:
        why = [f"No evidence: {finding.no_evidence}."] if finding.no_evidence else []
        ET.SubElement(case, "skipped", message=_text(" ".join([*told, words, *why])))
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
