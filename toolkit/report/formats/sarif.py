"""The SARIF 2.1.0 format (OASIS), for code scanning: findings are results in the model's file."""

from __future__ import annotations

import json
from typing import Any

from toolkit import __version__
from toolkit.report.formats.base import Format
from toolkit.risk.findings import Finding, Report, Severity
from toolkit.risk.headline import worst_in_words
from toolkit.text import LONGEST_SENTENCES, shown

_LEVELS: dict[Severity, str] = {
    "note": "note",
    "low": "note",
    "unknown": "warning",
    "medium": "warning",
    "high": "error",
    "critical": "error",
}
# GitHub code scanning rates scores above 9 as critical, above 7 as high, above 4 as medium.
_SCORES: dict[Severity, str] = {
    "note": "0.5", "low": "2.0", "unknown": "4.5", "medium": "5.5", "high": "8.0", "critical": "9.5",
}  # fmt: skip


def render(report: Report) -> str:
    """Render the report as SARIF."""
    a, findings = report.run.assessment, report.risk.findings
    waived = set() if report.verdict is None else {name for r in report.verdict.waived for name in r.findings}
    rules: dict[str, dict[str, Any]] = {}
    for finding in findings:
        rules.setdefault(_rule_id(finding), _rule(finding))
    places = {rule: i for i, rule in enumerate(rules)}
    notes = [("error", f"{u.attack} was not run: {u.reason}") for u in a.unavailable]
    notes += [("error", f"check failed: {c.name}, {c.about}: {c.detail}") for c in a.checks if not c.passed]
    notes += [("note", caveat) for caveat in a.caveats]
    if report.verdict is not None:
        notes += [("error", f"{r.code}: {r.text}") for r in report.verdict.reasons]
        notes += [("warning", f"waived: {r.text}") for r in report.verdict.waived]
    run = {
        "tool": {"driver": {"name": "Sixpixels", "version": __version__, "rules": list(rules.values())}},
        "invocations": [
            {
                "executionSuccessful": a.complete and a.valid,
                "toolExecutionNotifications": [{"level": at, "message": {"text": text}} for at, text in notes],
            }
        ],
        "artifacts": [{"location": {"uri": _uri(a.target.model)}, "hashes": {"sha-256": a.target.model_sha256}}],
        "results": [_result(f, places[_rule_id(f)], _uri(a.target.model), f.id in waived) for f in findings],
        "properties": {
            "policy": report.risk.policy,
            "severity": report.risk.severity,
            "headline": report.risk.headline,
            "worst": [worst_in_words(case, report.risk.budget) for case in report.risk.worst],
            "verdict": None if report.verdict is None else report.verdict.status,
        },
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(_visible(log), indent=1, allow_nan=False) + "\n"


def _visible(value: Any) -> Any:
    """Make every text in a log visible, for the pages that show it."""
    if isinstance(value, dict):
        return {key: _visible(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_visible(inner) for inner in value]
    return shown(value, LONGEST_SENTENCES) if isinstance(value, str) else value


def _rule_id(finding: Finding) -> str:
    return f"{finding.attack}/{finding.goal}"


def _rule(finding: Finding) -> dict[str, Any]:
    return {
        "id": _rule_id(finding),
        "shortDescription": {"text": f"{finding.goal} by {finding.attack}"},
        "helpUri": "https://owasp.org/www-project-machine-learning-security-top-10/",
        "properties": {"tags": ["security", *(f"{r.standard}: {r.id}" for r in finding.references)]},
    }


def _result(finding: Finding, rule: int, model: str, waived: bool) -> dict[str, Any]:  # noqa: FBT001
    result = {
        "ruleId": _rule_id(finding),
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.meaning} {finding.advice}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": model, "index": 0}}}],
        "partialFingerprints": {"sixpixels/finding/v1": finding.id},
        "properties": {
            "security-severity": _SCORES[finding.severity],
            "severity": finding.severity,
            "likelihood": finding.likelihood,
            "impact": finding.impact,
            "successes": finding.within.successes,
            "eligible": finding.within.trials,
            "profile": finding.profile,
            "knowledge": finding.knowledge,
            "noEvidence": finding.no_evidence,
        },
    }
    return result | ({"suppressions": [{"kind": "external", "status": "accepted"}]} if waived else {})


def _uri(name: str) -> str:
    from urllib.parse import quote

    return quote(shown(name))


FORMAT = Format("sarif", "report.sarif", render)
