"""Plans of how many pairs are needed, in the terminal."""

from __future__ import annotations

from rich.console import Console

from toolkit.report.terminal import facts_table
from toolkit.statistics.power import BoundPlan, ComparisonPlan


def print_power(plan: BoundPlan | ComparisonPlan, console: Console) -> None:
    """Print what is claimed, and the number of pairs that it takes."""
    facts = facts_table()
    if isinstance(plan, BoundPlan):
        facts.add_row(
            "claim", f"a rate of at most {100 * plan.claim:g} %, by the exact {100 * plan.confidence:g} % bound"
        )
        facts.add_row("expected", f"{100 * plan.expected:g} %")
        facts.add_row("pairs", f"{plan.pairs}, with at most {plan.most_errors} successes or errors among them")
    else:
        facts.add_row("claim", f"two profiles differ on the same pairs, exact McNemar at {100 * plan.level:g} %")
        facts.add_row("comparisons", f"{plan.comparisons}, as in the first step of Holm's correction")
        facts.add_row(
            "expected", f"only the first {100 * plan.only_first:g} %, only the second {100 * plan.only_second:g} %"
        )
        facts.add_row("pairs", f"{plan.pairs}")
    facts.add_row("power", f"{100 * plan.power:.1f} %: how probably so many pairs show it")
    console.print(facts)
    console.print(
        "Eligible pairs of one kind, independent of each other: where people are in many pairs, more are needed.",
        style="dim",
    )
