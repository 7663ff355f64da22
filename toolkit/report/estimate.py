"""Terminal report of a dry run: the plan of an audit, with its time and disk space."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console

from toolkit.audit.estimate import CAP, AuditEstimate, CraftEstimate, Span
from toolkit.audit.request import SAMPLE
from toolkit.audit.service_estimate import ServiceEstimate
from toolkit.report.terminal import bullet, facts_table, new_table

_LEGEND = (
    "The probes of each row are crafted once and replayed on all profiles named in it. Times hold for one chunk "
    "after the other on this machine, as busy as it is now; several threads and workers need less. They were measured "
    f"on at most {SAMPLE} pairs. Brackets: 95 % interval; its low end assumes that larger batches are faster."
)

_SERVICE_LEGEND = (
    "An attack stops early on pairs that fall, so most audits need fewer calls. Calls that fail and are repeated come "
    "on top, and count for the limits. Limits are never exceeded: an audit that reaches one stops, keeps every answer, "
    "and goes on when the limit is raised and the same command is given again."
)
_ANSWERS = {"embedding": "embeddings", "similarity": "similarities", "decision": "decisions alone"}


def print_estimate(estimate: AuditEstimate, console: Console, folder: Path | None, saved: Path | None) -> None:
    """Print a plan.

    Args:
        estimate: the plan.
        console: where to print.
        folder: the folder of the run, or None if it was not given.
        saved: the file that the options were saved to, or None.
    """
    e, facts = estimate, facts_table()
    facts.add_row(
        "plan", f"{e.scenarios} scenarios, {len(e.crafts)} sets of probes to craft" + (f"   {saved}" if saved else "")
    )
    facts.add_row("target", f"{e.target} on {e.provider}")
    kinds = f"{e.size.genuine} genuine, {e.size.impostor} impostor, {e.size.images} images"
    facts.add_row("pairs", f"{kinds}   {e.pairs_source}")
    if e.noisy_images:
        facts.add_row("certificates", f"{e.noisy_images} noisy images to run; the times do not include them")
    facts.add_row("run", f"{folder}" if folder else "runs/ and a hash of the request")
    console.print(facts)
    table = new_table("crafted once, replayed", console)
    table.add_column("attack", no_wrap=True)
    table.add_column("crafted on", no_wrap=True)
    table.add_column("replayed on")
    for column in ("time", "disk"):
        table.add_column(column, justify="right", no_wrap=True)
    for craft in e.crafts:
        disk = "-" if craft.bytes is None else _bytes(craft.bytes.expected)
        table.add_row(
            craft.attack, craft.known, _replayed(craft), "-" if craft.problem else _times(craft.seconds), disk
        )
    console.print(table)
    totals = facts_table()
    totals.add_row("loading, clean pairs, checks", _times(e.other_seconds))
    totals.add_row("total time", _times(e.seconds))
    at_least = "at least " if e.bytes.high is None else ""
    between = "" if e.bytes.high is None else f" [{_bytes(e.bytes.low)}, {_bytes(e.bytes.high)}]"
    totals.add_row("disk for probes", f"{at_least}{_bytes(e.bytes.expected)}{between}")
    totals.add_row("disk during the run", f"{_bytes(e.temporary_bytes)} more")
    console.print(totals)
    console.print(_LEGEND, style="dim")
    for craft in e.crafts:
        if craft.problem:
            bullet(console, f"{craft.attack} on {craft.known} could not be measured: {craft.problem}")
        elif craft.stopped:
            bullet(console, f"{craft.attack} on {craft.known} was stopped after {CAP:g} s; its time is a lower bound")
    for missing in e.unavailable:
        bullet(console, f"{missing.attack} will not run: {missing.reason}")


def print_service_estimate(estimate: ServiceEstimate, console: Console, saved: Path | None) -> None:
    """Print the plan of an audit of a service.

    Args:
        estimate: the plan.
        console: where to print.
        saved: the file that the options were saved to, or None.
    """
    e, facts = estimate, facts_table()
    facts.add_row("plan", f"{len(e.attacks)} attacks; the service was not called" + (f"   {saved}" if saved else ""))
    facts.add_row("service", f"{e.target}, which answers with {_ANSWERS[e.answers]}   {e.address}")
    kinds = f"{e.size.genuine} genuine, {e.size.impostor} impostor, {e.size.images} images"
    facts.add_row("pairs", f"{kinds}   {e.pairs_source}")
    console.print(facts)
    table = new_table("calls of the service, at most", console)
    table.add_column("for", no_wrap=True)
    table.add_column("crafted on")
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_row("clean pairs", "", f"{e.clean:,}")
    for attack in e.attacks:
        table.add_row(attack.attack, "the service" if attack.known == "none" else attack.known, f"{attack.calls:,}")
    table.add_row("canaries", "", f"{e.canaries:,}")
    table.add_row("all", "", f"{e.calls:,}")
    console.print(table)
    totals = facts_table()
    totals.add_row("at the allowed rate", f"{_time(e.seconds)} or more")
    if e.cost:
        limit = "" if e.max_cost is None else f"; limits.max_cost stops the audit at {e.max_cost:g}"
        totals.add_row("cost", f"at most {e.cost}{limit}")
    totals.add_row("limits.max_calls", f"{e.max_calls:,}" + ("" if e.fits else ", which may end the audit early"))
    console.print(totals)
    console.print(_SERVICE_LEGEND, style="dim")
    for missing in e.unavailable:
        bullet(console, f"{missing.attack} will not run: {missing.reason}")


def _replayed(craft: CraftEstimate) -> str:
    return ", ".join(profile if profile == craft.known else f"{profile} ({how})" for how, profile in craft.replayed)


def _times(span: Span) -> str:
    if span.high is None:
        return f"at least {_time(span.low)}"
    return f"{_time(span.expected)} [{_time(span.low)}, {_time(span.high)}]"


def _time(seconds: float) -> str:
    """Format a time with two significant digits, because it is only an estimate."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds)} s"


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{_digits(count / size)} {unit}"
    return f"{_digits(count / 1e3)} kB"


def _digits(value: float) -> str:
    if value <= 0:
        return "0"
    places = max(0, 1 - math.floor(math.log10(value)))
    return f"{value:.{min(places, 2)}f}"
