"""Risk, verdict and comparison on a terminal, at 80 columns."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from toolkit.report.terminal import box_of, bullet, new_table, whole_percent
from toolkit.risk.compare import Cell, Comparison
from toolkit.risk.findings import Finding, Reason, Risk, Severity, Verdict

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
    "L: likelihood, 9 x the one-sided exact 95 % upper bound of the success within the budget x what is left of it by "
    "the access needed; I: impact; both 0 to 9 and rated as OWASP does. unknown: too little evidence, never low."
)


def print_overall(risk: Risk, console: Console) -> None:
    """The overall severity with its headline, and what to do next."""
    title = f"OVERALL {risk.severity.upper()}   {risk.use_case}, {risk.budget}, {', '.join(risk.profiles)}"
    console.print(Panel(Text(risk.headline), title=Text(title, style=_STYLES[risk.severity]), box=box_of(console)))
    console.print("next", style="bold")
    for step in risk.next_steps:
        bullet(console, step)


def print_findings(risk: Risk, console: Console) -> None:
    """The findings, worst first."""
    table = new_table("findings, worst first", console)
    for column, justify in (
        ("severity", "left"),
        ("finding", "left"),
        ("within", "right"),
        ("L", "right"),
        ("I", "right"),
    ):
        table.add_column(column, justify=justify, no_wrap=column != "finding", overflow="fold")  # type: ignore[arg-type]
    for finding in risk.findings[:_FINDINGS_SHOWN]:
        table.add_row(*_cells(finding))
    console.print(table)
    if len(risk.findings) > _FINDINGS_SHOWN:
        console.print(f"and {len(risk.findings) - _FINDINGS_SHOWN} more, in the other formats", style="dim")
    console.print(_LEGEND, style="dim")


def print_verdict(verdict: Verdict, console: Console) -> None:
    """The verdict, and every reason for it."""
    style = "bold green" if verdict.status == "pass" else "bold red"
    console.print(f"\ngate {verdict.status.upper()}", style=style, highlight=False)
    for reason in verdict.reasons:
        bullet(console, f"{_status(reason)}: {reason.text}" + _about(reason))
    for reason in verdict.waived:
        bullet(console, f"waived: {reason.text}" + _about(reason))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """One line for every clean error and scenario, one column for every run."""
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
        "95 % Wilson intervals. *: differs from run 1 (p < 0.05, Holm), by exact McNemar where pairs are the same, by "
        "Fisher's exact test (marked f) where they are not.",
        style="dim",
    )


def _cells(finding: Finding) -> tuple[str | Text, ...]:
    return (
        Text(finding.severity, style=_STYLES[finding.severity]),
        Text(finding.id),
        f"{finding.within.successes}/{finding.within.trials}",
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
    return f"   [{reason.finding}]" if reason.finding and reason.finding not in reason.text else ""
