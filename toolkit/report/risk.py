"""Terminal reports of risk, verdict and comparison, for 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from toolkit.report.terminal import box_of, bullet, new_table, whole_percent
from toolkit.risk.compare import Cell, Comparison
from toolkit.risk.findings import Finding, Judgement, Reason, Risk, Severity, Verdict
from toolkit.risk.headline import certified_in_words

_STYLES: dict[Severity, str] = {
    "note": "dim",
    "low": "green",
    "unknown": "magenta",
    "medium": "yellow",
    "high": "red",
    "critical": "bold red",
}
_FINDINGS_SHOWN = 8
_LEGEND = (
    "within: successes within the budget over eligible pairs. L: likelihood = 9 x the one-sided exact 95 % upper bound "
    "of this rate x a weight for the access that the attack needs. I: impact. Both go from 0 to 9. Severities follow "
    "the OWASP risk rating. unknown: too little evidence; it does not mean low."
)


def print_judgement(judgement: Judgement, files: Sequence[Path], console: Console) -> None:
    """Print the report of a gate: risk, findings, verdict, and the files that were written."""
    print_overall(judgement.risk, console)
    print_worst(judgement.risk, console)
    print_findings(judgement.risk, console)
    if judgement.verdict is not None:
        print_verdict(judgement.verdict, console)
    for path in files:
        bullet(console, str(path))


def print_overall(risk: Risk, console: Console) -> None:
    """Print the overall severity with its headline, and the next steps."""
    title = f"OVERALL {risk.severity.upper()}   {risk.use_case}, {risk.budget}, {', '.join(risk.profiles)}"
    console.print(Panel(Text(risk.headline), title=Text(title, style=_STYLES[risk.severity]), box=box_of(console)))
    console.print("next steps", style="bold")
    for step in risk.next_steps:
        bullet(console, step)


def print_worst(risk: Risk, console: Console) -> None:
    """Print what fell to any attack on each deployed profile, and the attacks that are missing."""
    table = new_table(f"worst case: pairs that fell to any attack within {risk.budget}", console)
    for column in ("profile", "goal", "fell", "bound %", "people", "severity", "not shown"):
        table.add_column(column, justify="right" if column in ("fell", "bound %", "people") else "left")
    for case in risk.worst:
        table.add_row(
            Text(case.profile),
            case.goal,
            f"{case.within.successes}/{case.within.trials}",
            f"{100 * case.bound:.1f}",
            "?" if case.people is None else str(case.people),
            Text(case.severity, style=_STYLES[case.severity]),
            ", ".join(met.evidence for met in case.unmet),
        )
    console.print(table)
    for text in certified_in_words(risk.worst, risk.budget):
        bullet(console, text)


def print_findings(risk: Risk, console: Console) -> None:
    """Print the findings, worst first."""
    table = new_table("findings, worst first", console)
    for column, justify in (
        ("severity", "left"),
        ("finding", "left"),
        ("within", "right"),
        ("L", "right"),
        ("I", "right"),
    ):
        table.add_column(column, justify=justify, no_wrap=column != "finding", overflow="fold")  # type: ignore[arg-type]
    shown = risk.findings[:_FINDINGS_SHOWN]
    for finding in shown:
        table.add_row(*_cells(finding))
    console.print(table)
    if len(risk.findings) > _FINDINGS_SHOWN:
        console.print(f"and {len(risk.findings) - _FINDINGS_SHOWN} more; the other formats show all", style="dim")
    for why in dict.fromkeys(f"{f.id.split('/')[0]}: {f.no_evidence}" for f in shown if f.no_evidence):
        bullet(console, f"* no evidence that it fails: {why}")
    console.print(_LEGEND, style="dim")


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Print the verdict, and every reason for it."""
    style = "bold green" if verdict.status == "pass" else "bold red"
    console.print()
    console.print(f"gate {verdict.status.upper()}", style=style, highlight=False)
    for reason in verdict.reasons:
        bullet(console, f"{_status(reason)}: {reason.text}" + _about(reason))
    for reason in verdict.waived:
        bullet(console, f"waived: {reason.text}" + _about(reason))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a comparison: one row for each clean error and scenario, one column for each run."""
    for number, (run, target, model) in enumerate(
        zip(comparison.runs, comparison.targets, comparison.models, strict=True), 1
    ):
        console.print(f"run {number}: {run}   {target}   sha256 {model[:4]}..{model[-4:]}", highlight=False)
    table = new_table(f"clean errors and attack success within {comparison.budget}, %", console)
    table.add_column("", overflow="fold")
    for number in range(1, len(comparison.runs) + 1):
        table.add_column(f"run {number}", justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(row.id, *map(_rate_cell, row.cells))
    console.print(table)
    console.print(
        "Brackets: 95 % Wilson intervals. *: differs from run 1 (p < 0.05 with Holm's correction), by the exact "
        "McNemar test on common pairs, or by Fisher's exact test (marked f) on different pairs.",
        style="dim",
    )


def _cells(finding: Finding) -> tuple[str | Text, ...]:
    return (
        Text(finding.severity, style=_STYLES[finding.severity]),
        Text(finding.id),
        f"{finding.within.successes}/{finding.within.trials}" + ("*" if finding.no_evidence else ""),
        f"{finding.likelihood:.1f}",
        f"{finding.impact:g}",
    )


def _rate_cell(cell: Cell) -> str:
    if cell.rate is None:
        return "-"
    mark = "" if cell.p_value is None or cell.p_value >= 0.05 else "*"
    return whole_percent(cell.rate) + mark + ("f" if cell.p_value is not None and not cell.paired else "")


def _status(reason: Reason) -> str:
    return {"fail": "FAIL", "insufficient": "NOT SHOWN"}.get(reason.status, reason.status)


def _about(reason: Reason) -> str:
    other = [name for name in reason.findings if name not in reason.text]
    return f"   [{other[0]}]" if len(reason.findings) == 1 and other else ""
