"""Audits by different workers, whose files must be the same."""

from __future__ import annotations

from pathlib import Path

from tests.progress import Silent
from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.audit.workers import Workers
from toolkit.documents import to_json


def files(asked: Request, folder: Path, workers: str | Workers) -> dict[str, bytes]:
    """The report, the outcomes and all artifacts of an audit."""
    run = folder / "run"
    chosen = Workers(workers) if isinstance(workers, str) else workers
    report = to_json(run_audit(asked, run, Silent(), chosen)).encode()
    return {"report": report} | {p.relative_to(run).as_posix(): p.read_bytes() for p in run.rglob("*") if p.is_file()}
