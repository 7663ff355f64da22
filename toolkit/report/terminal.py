"""Building blocks of all reports in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.statistics.intervals import Rate
from toolkit.statistics.tries import HitRate

if TYPE_CHECKING:
    from toolkit.audit.replaying.detection import DetectionResult
    from toolkit.audit.results.assessment import Assessment, ScenarioResult

OPTIMALITY_LEGEND = (
    "1 means that no attack of the run with the same knowledge of the profile needs a smaller perturbation on any "
    "pair: the area above an attack's robustness curve over that above the curve of the best on each pair "
    "(AttackBench). For an attack in a ball: its successes over theirs within the ball. A run of weak attacks also "
    "shows 1."
)
# A report names at most this many pairs that were left out.
LEFT_OUT_SHOWN = 3
_ASCII_HEAD = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def percent(rate: Rate, *, interval: bool = True) -> str:
    """Format a rate in percent with one decimal, by default with its 95 % Wilson interval."""
    if rate.value is None:
        return "no pairs"
    low, high = rate.wilson()
    return f"{100 * rate.value:.1f}" + (f" [{100 * low:.1f}, {100 * high:.1f}]" if interval else "")


def norm(value: float | None) -> str:
    """Format a norm in at most four characters, so that tables fit 80 columns."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def knows(of: ScenarioResult | DetectionResult) -> str:
    """What the attacker knows: a level of knowledge, or the name of the profile that they believe in."""
    return of.known if of.knowledge == "partial" else of.knowledge


def whole_percent(rate: Rate, *, interval: bool = True) -> str:
    """Format a rate in whole percent, by default with its 95 % Wilson interval."""
    if rate.value is None:
        return "no pairs"
    low, high = rate.wilson()
    return f"{100 * rate.value:.0f}" + (f" [{100 * low:.0f},{100 * high:.0f}]" if interval else "")


def hit_percent(rate: HitRate) -> str:
    """Format the success rate within a number of tries in whole percent, with its 95 % interval."""
    return f"{100 * rate.value:.0f} [{100 * rate.low:.0f},{100 * rate.high:.0f}]"


def optimality_rows(a: Assessment) -> list[tuple[str, ...]]:
    """The optimality of each attack on each profile: attack, profile, knowledge, norm, and a value for each goal."""
    values = {(o.attack, o.profile, o.knowledge, o.norm, o.goal): o.value for o in a.optimality}
    goals = dict.fromkeys(o.goal for o in a.optimality)
    rows = []
    for attack, profile, level, measured in dict.fromkeys(key[:4] for key in values):
        cells = (values.get((attack, profile, level, measured, goal)) for goal in goals)
        shown = ("-" if value is None else f"{value:.2f}" for value in cells)
        rows.append((attack, profile, level if profile != "none" else "", measured.replace("l", "L", 1), *shown))
    return rows


def counted(rate: Rate) -> str:
    """Format a rate as two counts and in percent, with its interval."""
    return f"{rate.successes}/{rate.trials}  {percent(rate)}"


def by_people(interval: tuple[float, float]) -> str:
    """Format an interval of the bootstrap over people in percent."""
    return f"people: [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def short_hash(digest: str) -> str:
    """The first and the last four characters of a hash."""
    return f"{digest[:4]}..{digest[-4:]}"


def facts_table() -> Table:
    """Make a table of names and values, without lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def new_table(title: str, console: Console) -> Table:
    """Make a table without an outer border, in ASCII if the console does not support Unicode."""
    rule = box.SIMPLE_HEAD if knows_unicode(console) else _ASCII_HEAD
    return Table(title=title, title_justify="left", title_style="bold", box=rule, padding=(0, 1, 0, 0), show_edge=False)


def box_of(console: Console) -> box.Box:
    """The border style of a panel, in ASCII if the console does not support Unicode."""
    return box.ROUNDED if knows_unicode(console) else box.ASCII


def rule(console: Console, title: str) -> None:
    """Print a horizontal line with a title."""
    console.rule(title, characters="─" if knows_unicode(console) else "-")


def heading(console: Console, text: str) -> None:
    """Print the heading of a list."""
    console.print()
    console.print(text, style="bold")


def bullet(console: Console, text: str) -> None:
    """Print a list item, with its further lines indented."""
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row("  -", Text(text))
    console.print(row)


def knows_unicode(console: Console) -> bool:
    """Whether the console supports Unicode."""
    return console.encoding.lower().startswith("utf")
