"""JSON forms of assessments and evaluations: versioned, finite numbers only."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit import __version__
from toolkit.audit.assessment import Assessment
from toolkit.audit.collect import Partial
from toolkit.audit.cost import Costs
from toolkit.audit.detection import DetectorCalibration
from toolkit.audit.estimate import AuditEstimate
from toolkit.audit.evaluate import Evaluation
from toolkit.audit.select import Selection
from toolkit.audit.transfer import Transfer
from toolkit.doctor import Diagnosis
from toolkit.risk.compare import Comparison
from toolkit.risk.findings import Judgement
from toolkit.risk.sweep import Sweep
from toolkit.statistics.calibration import Calibration
from toolkit.statistics.intervals import Rate
from toolkit.statistics.power import BoundPlan, ComparisonPlan

if TYPE_CHECKING:
    from toolkit.export.compare import QuantizationReport
    from toolkit.export.run import ExportReport

SCHEMA_VERSION = 1


@cache
def report_schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`."""
    return _schema("report")


@cache
def transfer_schema() -> dict[str, Any]:
    """The JSON Schema of what `sixpixels replay` writes."""
    return _schema("transfer")


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def to_json(
    document: Assessment
    | AuditEstimate
    | Calibration
    | Comparison
    | Costs
    | DetectorCalibration
    | Diagnosis
    | BoundPlan
    | ComparisonPlan
    | Evaluation
    | ExportReport
    | Judgement
    | QuantizationReport
    | Partial
    | Selection
    | Sweep
    | Transfer,
) -> str:
    """The document as text, keys in a fixed order."""
    kind = type(document).__name__.lower()
    head = {"schema": SCHEMA_VERSION, "kind": kind, "sixpixels": __version__}
    return json.dumps({**head, **_plain(document)}, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Rate):
        wilson, exact = value.wilson(), value.clopper_pearson()
        return {
            "successes": value.successes,
            "trials": value.trials,
            "value": value.value,
            "wilson_95": list(wilson),
            "clopper_pearson_95": list(exact),
            "upper_95": value.upper_bound(),
        }
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
