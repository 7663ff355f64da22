"""Terminal report of a transfer, for 80 columns."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from toolkit.audit.transfer.tested import TransferResult
from toolkit.audit.transfer.transfer import Transfer
from toolkit.report.terminal import bullet, facts_table, heading, new_table, norm, percent, whole_percent

_LEGEND = (
    "n: pairs that source and target both decide correctly without an attack. crafted: pairs among them that the "
    "attack flips on the source; only their probes are sent. ASR: successes on the target over n, with the 95 % Wilson "
    "interval. transfer: successes over crafted, in %. own: successes that resampling alone does not cause. L2, after: "
    "median L2 norm (pixel range 1) of the crafted probes in the source's crop, and after resampling."
)
_JOINT = (
    "joint: crafted on all sources at once, without a profile. n then counts pairs that all of them decide correctly, "
    "and crafted counts probes that reach the goal by the mean of their margins."
)


def print_transfer(transfer: Transfer, console: Console, path: Path) -> None:
    """Print the results of a run's probes on another verifier; `path` is the JSON file of the transfer."""
    t, geometry = transfer, transfer.geometry
    console.print()
    dash = "─" if console.encoding.lower().startswith("utf") else "-"
    console.rule(f"sixpixels replay   run {t.run} on {t.target}", characters=dash)
    facts = facts_table()
    facts.add_row("crafted on", f"{t.source}   sha256 {t.source_identity[:12]}")
    for other in t.further:
        facts.add_row("joint with", f"{other.name}   sha256 {other.sha256[:12]}")
    where = f"sha256 {t.target_identity[:12]}" if t.calls is None else t.target_identity
    facts.add_row("replayed on", f"{t.target} with profile {t.profile}   {where}")
    if t.calls is not None:
        facts.add_row("calls", f"{t.calls}, including repeated calls")
    sizes = "{} x {} to {} x {}".format(*geometry.source, *geometry.target)
    facts.add_row("crops", f"{sizes}, scale {geometry.scale:.3f}, at least {100 * geometry.covered:.0f} % covered")
    facts.add_row("pairs", f"{t.pairs_source}; {t.left_out} left out")
    console.print(facts)
    table = new_table("the target without an attack", console)
    table.add_column("goal", no_wrap=True)
    for column in ("pairs", "wrong", "no decision", "flipped by resampling alone %"):
        table.add_column(column, justify="right")
    for b in t.baseline:
        table.add_row(b.goal, str(b.pairs), str(b.clean_errors), str(b.failed + b.lost), percent(b.flips))
    console.print(table)
    for goal in dict.fromkeys(r.goal for r in t.results):
        console.print(_table([r for r in t.results if r.goal == goal], console))
    console.print(f"{_LEGEND} {_JOINT}" if t.further else _LEGEND, style="dim")
    for failure in t.unavailable:
        bullet(console, f"NOT TESTED: {failure.attack}: {failure.reason}")
    for r in t.results:
        if r.failed:
            bullet(console, f"{r.attack} on {r.known}, {r.goal}: the target made no decision on {r.failed} probes")
    heading(console, "files")
    bullet(console, str(path))


def _table(results: list[TransferResult], console: Console) -> Table:
    table = new_table(f"transfer: {results[0].goal}", console)
    table.add_column("attack", no_wrap=True)
    table.add_column("against", no_wrap=True)
    for column in ("n", "crafted", "ASR % [95 %]", "transfer", "own", "L2", "after"):
        table.add_column(column, justify="right", no_wrap=True)
    for r in results:
        table.add_row(
            r.attack,
            "joint" if r.joint else r.known,
            str(r.eligible),
            str(r.crafted),
            whole_percent(r.asr),
            "-" if r.of_crafted.value is None else whole_percent(r.of_crafted, interval=False),
            str(r.beyond_resampling),
            norm(r.l2_source),
            norm(r.l2),
        )
    return table
