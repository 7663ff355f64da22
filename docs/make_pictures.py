"""Makes the README's pictures: `python docs/make_pictures.py`, with Chromium installed. Their faces are of nobody."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from toolkit import AuditOptions, Run, audit_verifier, judge_run, write_reports
from toolkit.report.assessment import print_assessment
from toolkit.report.risk import print_overall, print_worst

FOLDER = Path(__file__).parent / "pictures"
_SIZE = "1000,1500"


def main() -> None:
    """Audit the shipped verifier on the embedded faces, and draw its terminal report and its HTML report."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        few = ("fmn", "momentum-l2", "gaussian")
        run = audit_verifier(AuditOptions(limit=10, attacks=few, profiles=("none", "mean3"), run=Path(folder) / "run"))
        # A picture names no folder of the machine that made it.
        run = replace(run, assessment=replace(run.assessment, pairs_source="the embedded faces"))
        draw_terminal(run, FOLDER / "report.svg")
        (page,) = write_reports(run, ("html",), folder)
        draw_html(page, FOLDER / "report.png")


def draw_terminal(run: Run, path: Path) -> None:
    """The page as a terminal of 80 columns shows it."""
    console = Console(width=80, record=True, highlight=False, markup=False, quiet=False, force_terminal=True)
    risk = judge_run(run).risk
    print_overall(risk, console)
    print_worst(risk, console)
    print_assessment(run.assessment, console, [Path("runs/1a2b3c4d/report.json")])
    # Without fonts from elsewhere: a picture needs no network.
    drawn = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="sixpixels audit"), flags=re.DOTALL)
    path.write_text(drawn, encoding="utf-8")


def draw_html(page: Path, path: Path) -> None:
    """The beginning of the page as a browser shows it."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={_SIZE}"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    subprocess.run([*command, f"--screenshot={path.resolve()}", page.resolve().as_uri()], check=True)


if __name__ == "__main__":
    main()
