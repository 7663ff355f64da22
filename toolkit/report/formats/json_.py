"""The JSON format: risk and verdict. The assessment is in `report.json`."""

from __future__ import annotations

from toolkit.documents import to_json
from toolkit.report.formats.base import Format
from toolkit.risk.findings import Judgement, Report


def render(report: Report) -> str:
    """Render the document that `sixpixels gate --json` prints."""
    return to_json(Judgement(report.risk, report.verdict))


FORMAT = Format("json", "risk.json", render)
