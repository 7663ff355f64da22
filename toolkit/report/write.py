"""Writes a report in several formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.audit.results.evidence import evidence_of
from toolkit.audit.results.outcomes import Run
from toolkit.audit.results.record import is_of_nobody
from toolkit.files import write_bytes
from toolkit.progress import SILENT, Progress
from toolkit.registry import choose, discover
from toolkit.report.figures import pictures, write_figures
from toolkit.report.formats.base import Format
from toolkit.risk.findings import Judgement, Picture, Report
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate

# The format that is printed, not written to a file.
TERMINAL = "terminal"


def choose_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """Find the formats in `names` that are written to files.

    Raises:
        UsageError: a format does not exist.
    """
    known = discover("format")
    return tuple(one for one in choose("format", names, {TERMINAL: None, **known}) if one is not None)


def write_reports(
    run: Run,
    formats: Sequence[str],
    folder: Path | str | None = None,
    *,
    judgement: Judgement | None = None,
    policy: Policy | str = "access-control",
    with_faces: bool | None = None,
    progress: Progress = SILENT,
) -> list[Path]:
    """Write one file for each format.

    Args:
        run: the run.
        formats: names from html, markdown, sarif, junit and json. The name terminal is ignored.
        folder: folder to write to. Default: the run's folder.
        judgement: the judgement from `judge_run`. Default: a rating under `policy`, without a verdict.
        policy: a shipped policy's name, a .toml file, or a policy. It is ignored if `judgement` is given.
        with_faces: whether the HTML report shows attacked faces, which are personal data. None shows only the embedded
            faces, which are not real people.
        progress: shows the alignment of the faces for the pictures.

    Returns:
        The paths of the files.

    Raises:
        UsageError: a format does not exist.
        InputError: the folder cannot be written, or photos, verifier or probes for the pictures are missing.
    """
    chosen = choose_formats(formats)
    judged = judgement or Judgement(rate(run, find_policy(policy)))
    faces = _pictures(run, progress) if "html" in formats and _may_show(run, with_faces=with_faces) else ()
    report = Report(run, judged.risk, judged.verdict, faces)
    where = run.folder if folder is None else Path(folder)
    texts = [(where / one.file, one.render(report)) for one in chosen]
    for path, text in texts:
        write_bytes(path, text.encode())
    return [path for path, _ in texts]


def write_paper_figures(run: Run) -> list[Path]:
    """Write figures 3 to 5 of the paper into the run's folder, and return their paths. They show the attacked faces.

    Raises:
        InputError: the folder cannot be written, or photos, verifier or probes are missing.
    """
    return write_figures(evidence_of(run), run.folder)


def _may_show(run: Run, *, with_faces: bool | None) -> bool:
    return is_of_nobody(run.folder) if with_faces is None else with_faces


def _pictures(run: Run, progress: Progress) -> tuple[Picture, ...]:
    """Pictures of a run's probes. A group has none, because its probes have no single reference."""
    a = run.assessment
    return () if a.group is not None or not a.scenarios else pictures(evidence_of(run, progress))
