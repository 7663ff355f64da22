"""Terminal report of how many pairs a claim needs."""

from __future__ import annotations

from rich.console import Console

from toolkit.report.terminal import facts_table
from toolkit.statistics.power import BoundPlan, ComparisonPlan


def print_power(plan: BoundPlan | ComparisonPlan, console: Console) -> None:
    """Print the claim, and the number of pairs that it needs."""
    facts = facts_table()
    if isinstance(plan, BoundPlan):
        facts.add_row(
            "claim", f"a rate of at most {100 * plan.claim:g} %, by the exact {100 * plan.confidence:g} % bound"
        )
        facts.add_row("expected", f"{100 * plan.expected:g} %")
        facts.add_row("pairs", f"{plan.pairs}, of which at most {plan.most_errors} may be successes or errors")
    else:
        facts.add_row("claim", f"two profiles differ on the same pairs, exact McNemar at {100 * plan.level:g} %")
        facts.add_row("comparisons", f"{plan.comparisons}, as in the first step of Holm's correction")
        facts.add_row(
            "expected",
            f"attacks succeed only on the first in {100 * plan.only_first:g} % of pairs, "
            f"only on the second in {100 * plan.only_second:g} %",
        )
        facts.add_row("pairs", f"{plan.pairs}")
    facts.add_row("power", f"{100 * plan.power:.1f} %: the probability that this many pairs show the claim")
    console.print(facts)
    console.print(
        "Count eligible pairs of one kind (genuine or impostor). The pairs must be independent: if people are in "
        "several pairs, more pairs are needed.",
        style="dim",
    )
