"""Terminal reports of profile selections and costs, and the Pareto front as a figure."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from toolkit.audit.selection.added import Median
from toolkit.audit.selection.cost import Costs
from toolkit.audit.selection.select import Selection, Standing
from toolkit.files import atomic_write
from toolkit.report.terminal import bullet, counted, new_table, percent
from toolkit.statistics.tests import LEVEL

_ADDED_LEGEND = (
    "Of each pair, the smallest perturbation and the fewest queries of any attack that knows the profile and succeeds "
    "within an RMS of {budget:g}/255. more, less: pairs that need a larger or smaller perturbation than bare; p: exact "
    "sign test with Holm's correction, bold below {level:g}. A pair that no attack got is only known to need more than "
    "the budget; the sign test needs no more, but Wilcoxon's would. x RMS, + queries: median ratio and difference of "
    "the pairs that fell on at least one side, at least; ?: the pairs give no bound."
)


def print_selection(selection: Selection, console: Console) -> None:
    """Print the recommendation, its reasons, a table of all profiles, and the paired tests."""
    if selection.chosen is None:
        console.print(Text.assemble(("no recommendation", "bold"), f": {selection.refused}"))
    else:
        console.print(Text.assemble("recommended: ", (selection.chosen, "bold")))
    for reason in selection.reasons:
        bullet(console, reason)
    console.print()
    console.print(f"attacks that know the profile: {', '.join(selection.attacks)}")
    table = new_table(f"profiles; goal {selection.limits.goal}, RMS <= {selection.limits.budget:g}/255", console)
    table.add_column("profile", no_wrap=True)
    certified = ["L2 held"] if any(s.radius is not None for s in selection.standings) else []
    for column in ("ASR % at most", "strongest", *certified, "FNMR %", "FMR %", "x bare", "front"):
        table.add_column(column, justify="right", no_wrap=True)
    for s in selection.standings:
        table.add_row(
            s.profile,
            "-" if s.upper is None else f"{100 * s.upper:.1f}",
            s.strongest or "-",
            *(["-" if s.radius is None else f"{s.radius:.2f}"] if certified else []),
            percent(s.fnmr, interval=False),
            percent(s.fmr, interval=False),
            "-" if s.latency_ratio is None else f"{s.latency_ratio:.2f}",
            "yes" if s.front else "",
            style="bold" if s.profile == selection.chosen else None,
        )
    console.print(table)
    if certified:
        console.print("L2 held: average certified radius of the deployed profile, 0 where it errs", style="dim")
    for s in selection.standings:
        for obstacle in (*s.unfit, *s.exceeded):
            bullet(console, f"{s.profile}: {obstacle}")
    _print_claims(selection, console)
    _print_added(selection, console)


def _print_claims(selection: Selection, console: Console) -> None:
    if not selection.claims:
        return
    tests = new_table(f"do attacks succeed less often on {selection.nearest} than on other profiles?", console)
    tests.add_column("other", no_wrap=True)
    for column in ("pairs", f"only {selection.nearest}", "only other", "p", "p, Holm", "verdict"):
        tests.add_column(column, justify="right", no_wrap=True)
    for c in selection.claims:
        verdict = {"better": "less often", "worse": "more often", "not shown": "not shown"}[c.verdict]
        p_values = (f"{p:.2g}" for p in (c.p_value, c.p_adjusted))
        tests.add_row(c.other, str(c.pairs), str(c.fell), str(c.other_fell), *p_values, verdict)
    console.print(tests)


def _print_added(selection: Selection, console: Console) -> None:
    """Print what each profile adds to the attacker's cost, also if none is recommended."""
    if not selection.added:
        bullet(console, "what profiles add to the attacker's cost is unknown: no usable results of the bare verifier")
        return
    table = new_table("what profiles add to the attacker's cost, against the bare verifier", console)
    table.add_column("profile", no_wrap=True)
    for column in ("pairs", "more", "less", "p, Holm", "x RMS [95 %]", "+ queries [95 %]"):
        table.add_column(column, justify="right", no_wrap=True)
    for a in selection.added:
        queries = "-" if a.queries is None else _median(a.queries, ".0f")
        cells = (str(a.pairs), str(a.larger), str(a.smaller), f"{a.p_adjusted:.2g}", _median(a.ratio, ".2f"), queries)
        table.add_row(a.profile, *cells, style="bold" if a.verdict == "better" else None)
    console.print(table)
    console.print(_ADDED_LEGEND.format(budget=selection.limits.budget, level=LEVEL), style="dim")


def _median(median: Median, form: str) -> str:
    """Format a median with its interval."""
    if median.at_least is None:
        return "no pairs" if not median.pairs else "unknown"
    low, high = ("?" if end is None else format(end, form) for end in (median.low, median.high))
    return f"{format(median.at_least, form)} [{low}, {high}]"


def write_pareto(selection: Selection, path: Path) -> None:
    """Draw the ASR's upper bound against the clean FNMR of each profile as a PNG, labeled with latencies.

    Filled dots are on the Pareto front.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    places: dict[tuple[float, float], list[Standing]] = {}
    for s in selection.standings:
        if s.upper is not None and s.fnmr.value is not None:
            places.setdefault((100 * s.fnmr.value, 100 * s.upper), []).append(s)
    for at, here in places.items():
        color = "C3" if selection.chosen in [s.profile for s in here] else "C0"
        fill = "full" if any(s.front for s in here) else "none"
        axes.plot(*at, marker="o", color=color, fillstyle=fill, linestyle="none")
        # Profiles at the same point share a label. It hangs down, because many points are at the top.
        label = "\n".join(map(_label, here))
        axes.annotate(label, at, xytext=(6, 4), textcoords="offset points", fontsize=8, verticalalignment="top")
    if selection.limits.max_fnmr is not None:
        axes.axvline(100 * selection.limits.max_fnmr, color="0.6", linestyle="--", linewidth=1)
    axes.set_xlabel("clean FNMR in %")
    axes.set_ylabel(f"ASR in %, one-sided 95 % bound, {selection.limits.goal}")
    axes.set_title("filled: on the Pareto front; red: recommended", fontsize=9)
    # Leave room for labels on the right, and do not magnify tiny differences of rates.
    right = 1.3 * max(2.0, 100 * (selection.limits.max_fnmr or 0), *(at[0] for at in places))
    axes.set_xlim(-0.03 * right, right)
    axes.set_ylim(-3, 103)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)


def _label(s: Standing) -> str:
    return s.profile if s.latency_ratio is None else f"{s.profile} (x {s.latency_ratio:.2f})"


def print_costs(result: Costs, console: Console) -> None:
    """Print the costs of profiles, compared with the bare verifier."""
    costs = result.profiles
    console.print(Text.assemble((result.model, "bold"), f"   {result.provider}   {result.pairs_source}"))
    table = new_table("clean errors", console)
    table.add_column("profile", no_wrap=True)
    for column in ("FNMR % [95 %]", "FMR % [95 %]", "EER %", "FNMR % at bare FMR"):
        table.add_column(column, justify="right")
    for c in costs:
        point = "-" if c.recalibrated is None else f"{percent(c.recalibrated.fnmr)} at {c.recalibrated.threshold:.4f}"
        table.add_row(c.profile, percent(c.fnmr), percent(c.fmr), f"{100 * c.eer:.2f}", point)
    console.print(table)
    console.print("at bare FMR: at the point estimate of the threshold that has it, not conservative", style="dim")
    times = new_table("milliseconds per call, and memory", console)
    times.add_column("profile", no_wrap=True)
    for timing in costs[0].timings:
        for column in (f"batch {timing.batch}: p50", "p99", "x bare", "MB"):
            times.add_column(column, justify="right")
    for c in costs:
        cells = []
        for timing, bare in zip(c.timings, costs[0].timings, strict=True):
            memory = "-" if timing.memory is None else f"{timing.memory / 1e6:.0f}"
            cells += [f"{timing.p50:.1f}", f"{timing.p99:.1f}", f"{timing.p50 / bare.p50:.2f}", memory]
        times.add_row(c.profile, *cells)
    console.print(times)
    for c in costs:
        if c.false_alarm is not None:
            console.print(f"{c.profile}: detector flags {counted(c.false_alarm)} % of the distinct clean crops")
