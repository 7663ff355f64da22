"""Risk and verdict as JSON; the assessment itself is in `report.json` already."""

from __future__ import annotations

from toolkit.report.formats.base import Format
from toolkit.report.jsonable import to_json
from toolkit.risk.findings import Judgement, Report


def render(report: Report) -> str:
    """The document that `sixpixels gate --json` prints."""
    return to_json(Judgement(report.risk, report.verdict))


FORMAT = Format("json", "risk.json", render)
