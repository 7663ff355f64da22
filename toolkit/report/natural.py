"""Errors under what cameras do: the rows that all formats show, and the terminal report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from toolkit.audit.replaying.natural import NaturalResult
from toolkit.report.terminal import new_table, whole_percent
from toolkit.statistics.tests import LEVEL

TITLE = "What cameras do"
HEAD = ("corruption", "value", "FNMR %", "lost %", "FMR %", "lost %")
LEGEND = (
    "Probes as cameras make them, at five strengths; references stay clean. FNMR, FMR: errors over all pairs, with the "
    "95 % Wilson interval; a flagged probe counts as refused. lost: pairs that became wrong, over those decided "
    "correctly without the corruption. * (+): significantly more (fewer) errors than bare on the same images, by the "
    "exact McNemar test with Holm's correction over all tests. The strengths are those of ImageNet-C, scaled to the "
    "crop; docs/audit.md explains them. Corruptions are no attacks, and no evidence about attackers."
)


def natural_profiles(results: Sequence[NaturalResult]) -> list[str]:
    """The names of the profiles, in the order of the results."""
    return list(dict.fromkeys(result.profile for result in results))


def natural_rows(results: Sequence[NaturalResult], profile: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for each corruption and strength behind a profile, as plain text under `HEAD`."""
    found: dict[tuple[str, int], dict[str, NaturalResult]] = {}
    for result in results:
        if result.profile == profile:
            found.setdefault((result.corruption, result.strength), {})[result.kind] = result
    for (corruption, _), kinds in found.items():
        cells = [cell for kind in ("fnmr", "fmr") for cell in _cells(kinds.get(kind))]
        yield corruption, f"{next(iter(kinds.values())).value:g}", *cells


def natural_words(results: Sequence[NaturalResult]) -> list[str]:
    """Say in sentences where a profile makes more errors than the bare verifier."""
    if all(result.p_value is None for result in results):
        return ["Nothing is compared with the bare verifier: the run has no other profile, or not the bare one."]
    words = []
    for profile in natural_profiles([result for result in results if result.p_value is not None]):
        mine = [result for result in results if result.profile == profile]
        worse = [f"{r.corruption} {r.value:g} ({r.kind.upper()})" for r in mine if _mark(r) == "*"]
        if worse:
            words.append(f"{profile} costs robustness: more errors than bare with {', '.join(worse)}.")
        else:
            words.append(f"{profile}: no corruption is shown to cause more errors than bare.")
    return words


def print_natural(results: Sequence[NaturalResult], console: Console) -> None:
    """Print a table for each profile; nothing without results."""
    if not results:
        return
    for profile in natural_profiles(results):
        table = new_table(f"{TITLE.lower()}: {profile}", console)
        for i, column in enumerate(HEAD):
            table.add_column(column, no_wrap=True, justify="right" if i else "left")
        previous = ""
        for corruption, *cells in natural_rows(results, profile):
            table.add_row(*map(Text, ("" if corruption == previous else corruption, *cells)))
            previous = corruption
        console.print(table)
    for words in [LEGEND, *natural_words(results)]:
        console.print(words, style="dim")


def _cells(result: NaturalResult | None) -> tuple[str, str]:
    if result is None:
        return "no pairs", "no pairs"
    return whole_percent(result.rate) + _mark(result), whole_percent(result.lost)


def _mark(result: NaturalResult) -> str:
    if result.p_adjusted is None or result.p_adjusted >= LEVEL:
        return ""
    return "*" if (result.worse or 0) > (result.better or 0) else "+"
