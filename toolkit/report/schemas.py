"""The JSON Schemas of the reports."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def report_schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`."""
    return _schema("report")


@cache
def transfer_schema() -> dict[str, Any]:
    """The JSON Schema of the file that `sixpixels replay` writes."""
    return _schema("transfer")


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema
