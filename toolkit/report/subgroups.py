"""Rates by subgroup: the rows that all formats show, and the terminal report."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from toolkit.audit.results.subgroups import SubgroupComparison, Subgroups
from toolkit.report.terminal import counted, new_table
from toolkit.statistics.tests import LEVEL

TITLE = "By group of pairs"
HEAD = ("profile", "rate", "group", "errors or falls, % [95 %]", "p, Holm")
_MEASURES = {"fnmr": "FNMR", "fmr": "FMR", "dodging": "dodging", "impersonation": "imperson."}


def subgroup_rows(subgroups: Subgroups) -> Iterator[tuple[str, ...]]:
    """Yield a row for each group of each comparison, as plain text under `HEAD`."""
    for c in subgroups.comparisons:
        for i, group in enumerate(c.groups):
            rate = counted(group.rate) + (" few" if group.few else "")
            p_value = "" if i or c.p_adjusted is None else f"{c.p_adjusted:.2g}"
            yield c.profile, _MEASURES[c.measure], group.label, rate, p_value


def subgroup_words(subgroups: Subgroups) -> list[str]:
    """Say in sentences what the rows show: the rules, what is too small, and what differs."""
    few = sorted({g.label for c in subgroups.comparisons for g in c.groups if g.few})
    differ = [c for c in subgroups.comparisons if c.p_adjusted is not None and c.p_adjusted < LEVEL]
    legend = (
        "FNMR and FMR: clean pairs. dodging, imperson.: eligible pairs that fell to any attack of the run within "
        f"an RMS of {subgroups.budget:g}/255. p: exact test of equal rates (Fisher; Freeman and Halton), with Holm's "
        "correction over all these tests. It takes pairs as independent, and does not show that rates are equal."
    )
    words = [
        legend,
        *(f"Rates differ between groups: {_named(c)} (p {c.p_adjusted:.2g})." for c in differ),
    ]
    if few:
        words.append(
            f"Too few pairs to say much of a group alone: {', '.join(few)}. With fewer than {subgroups.fewest} pairs, "
            "even no error would allow a rate of 10 % (rule of three); ISO/IEC 19795-10 is about such comparisons."
        )
    if subgroups.unlabeled:
        words.append(f"{subgroups.unlabeled} pairs have no group, and count in none.")
    return words


def print_subgroups(subgroups: Subgroups | None, console: Console) -> None:
    """Print the rates by group; nothing if the pairs have no groups."""
    if subgroups is None:
        return
    table = new_table(TITLE.lower(), console)
    for column in HEAD:
        table.add_column(column, overflow="fold", justify="right" if column in HEAD[3:] else "left")
    previous: tuple[str, ...] = ()
    for row in subgroup_rows(subgroups):
        head = tuple("" if cell == before else cell for cell, before in zip(row[:2], previous, strict=False)) or row[:2]
        table.add_row(*(Text(cell) for cell in (*head, *row[2:])))
        previous = row[:2]
    console.print(table)
    for words in subgroup_words(subgroups):
        console.print(words, style="dim")


def _named(c: SubgroupComparison) -> str:
    return f"{_MEASURES[c.measure].replace('imperson.', 'impersonation')} through {c.profile}"
