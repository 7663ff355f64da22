"""The command that computes how many pairs a claim needs."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.commands.options import Json
from toolkit.commands.show import console, print_document
from toolkit.errors import UsageError


def power(
    claim: Annotated[
        float | None, typer.Option(help="The claim: a rate is at most this, for example 0.05 for an ASR of 5 %.")
    ] = None,
    expected: Annotated[float, typer.Option(help="With --claim: the expected true rate.")] = 0.0,
    confidence: Annotated[float, typer.Option(help="With --claim: confidence of the one-sided bound.")] = 0.95,
    only_first: Annotated[
        float | None, typer.Option(help="Share of pairs that attacks get only through the first of two profiles.")
    ] = None,
    only_second: Annotated[
        float, typer.Option(help="Share of pairs that attacks get only through the second profile.")
    ] = 0.0,
    level: Annotated[
        float, typer.Option(help="With --only-first: significance level of the test between the two profiles.")
    ] = 0.05,
    comparisons: Annotated[
        int, typer.Option(help="With --only-first: number of tests on the same pairs (Holm correction).")
    ] = 1,
    wanted: Annotated[
        float, typer.Option("--power", help="Probability that this many pairs show the claim or the difference.")
    ] = 0.8,
    as_json: Json = False,
) -> None:
    """Compute how many pairs a claim needs, before you collect them.

    [bold]Examples[/bold]

      sixpixels power --claim 0.05 --expected 0.01
      sixpixels power --only-first 0.2 --only-second 0.05 --comparisons 9
    """
    from toolkit.report.power import print_power
    from toolkit.statistics.power import BoundPlan, ComparisonPlan, pairs_to_bound, pairs_to_compare

    if (claim is None) == (only_first is None):
        raise UsageError("give --claim, or --only-first with --only-second")
    plan: BoundPlan | ComparisonPlan
    if claim is not None:
        plan = pairs_to_bound(claim, expected, confidence, wanted)
    else:
        assert only_first is not None  # noqa: S101 - for mypy: one of the two was given
        plan = pairs_to_compare(only_first, only_second, level, wanted, comparisons)
    if as_json:
        print_document(plan)
    else:
        print_power(plan, console())
