"""Terminal report of `sixpixels doctor`."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from toolkit.doctor import Diagnosis

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print one line for each finding, with its remedy below it, and a summary."""
    width = max(len(finding.about) for finding in diagnosis.findings)
    for f in diagnosis.findings:
        status = (f"{f.status:8}", _STYLES[f.status])
        console.print(Text.assemble(status, f" {f.about:{width}}  {f.detail}"), soft_wrap=True)
        if f.remedy:
            console.print(Text(f"{'':{width + 11}}do: {f.remedy}"), soft_wrap=True)
    counts = {status: sum(f.status == status for f in diagnosis.findings) for status in _STYLES}
    verdict = "everything that audits need works" if diagnosis.works else "something that audits need is broken"
    console.print(f"{verdict}: {counts['ok']} ok, {counts['warning']} warnings, {counts['failed']} failed")
