"""Terminal report of a sweep over thresholds."""

from __future__ import annotations

from rich.console import Console

from toolkit.report.terminal import facts_table, new_table, norm, whole_percent
from toolkit.risk.sweep import Strongest, Sweep

_LEGEND = (
    "Each row is one threshold, with an audit of its own by attackers who know it. Clean errors and attack success are "
    "in % with 95 % Wilson intervals. Success: that of the strongest attack that knows or queries the profile, within "
    "the budget. RMS: median of all its successes, in 1/255."
)


def print_sweep(result: Sweep, console: Console) -> None:
    """Print one table for each profile."""
    facts = facts_table()
    facts.add_row("target", f"{result.model}   {result.metric}")
    facts.add_row("pairs", result.pairs_source)
    facts.add_row("budget", result.budget)
    console.print(facts)
    for profile in dict.fromkeys(row.profile for row in result.rows):
        table = new_table(f"thresholds, {profile}", console)
        rows = [row for row in result.rows if row.profile == profile]
        goals = sorted({s.goal for row in rows for s in row.strongest})
        columns = [column for goal in goals for column in (f"{goal} %", "RMS")]
        for column in ("below", "FNMR %", "FMR %", *columns):
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            strongest = {s.goal: s for s in row.strongest}
            cells = [cell for goal in goals for cell in _success(strongest.get(goal))]
            table.add_row(f"{row.threshold:.4g}", whole_percent(row.fnmr), whole_percent(row.fmr), *cells)
        console.print(table)
    console.print(_LEGEND, style="dim")


def _success(s: Strongest | None) -> tuple[str, str]:
    return ("-", "-") if s is None else (whole_percent(s.within), norm(s.median_rms))
