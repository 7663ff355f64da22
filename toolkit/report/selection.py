"""A selection in the terminal, and its Pareto front as a figure."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from toolkit.audit.select import Selection, Standing
from toolkit.files import atomic_write
from toolkit.report.terminal import bullet, new_table, percent


def print_selection(selection: Selection, console: Console) -> None:
    """Print the recommendation, its reasons, every profile's standing, and the paired tests."""
    if selection.chosen is None:
        none = ("no profile meets the limits", "bold")
        console.print(Text.assemble(none, "; the nearest is ", (str(selection.nearest), "bold")))
    else:
        bare = ", the bare verifier" if selection.chosen == "none" else ""
        console.print(Text.assemble("recommended: ", (selection.chosen, "bold"), bare))
    for reason in selection.reasons:
        bullet(console, reason)
    console.print(f"\nattacks that know the profile: {', '.join(selection.attacks)}")
    table = new_table(f"profiles; goal {selection.limits.goal}", console)
    table.add_column("profile", no_wrap=True)
    for column in ("ASR % at most", "strongest", "FNMR %", "FMR %", "x bare", "front"):
        table.add_column(column, justify="right", no_wrap=True)
    for s in selection.standings:
        table.add_row(
            s.profile,
            "-" if s.upper is None else f"{100 * s.upper:.1f}",
            s.strongest or "-",
            percent(s.fnmr, interval=False),
            percent(s.fmr, interval=False),
            "-" if s.latency_ratio is None else f"{s.latency_ratio:.2f}",
            "yes" if s.front else "",
            style="bold" if s.profile == selection.chosen else None,
        )
    console.print(table)
    for s in selection.standings:
        for obstacle in (*s.unfit, *s.exceeded):
            bullet(console, f"{s.profile}: {obstacle}")
    if selection.claims:
        tests = new_table(f"does an attack succeed less often behind {selection.nearest}?", console)
        tests.add_column("than", no_wrap=True)
        for column in ("pairs", "fell here only", "there only", "p", "p, Holm", "verdict"):
            tests.add_column(column, justify="right", no_wrap=True)
        for c in selection.claims:
            verdict = {"better": "less often", "worse": "more often", "not shown": "not shown"}[c.verdict]
            p_values = (f"{p:.2g}" for p in (c.p_value, c.p_adjusted))
            tests.add_row(c.other, str(c.pairs), str(c.fell), str(c.other_fell), *p_values, verdict)
        console.print(tests)


def write_pareto(selection: Selection, path: Path) -> None:
    """Draw the ASR's bound against the FNMR of each profile as a PNG; the front is drawn full, latency is written.

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
        # Profiles at one place share a label; downward, because the highest ASR is a common place.
        label = "\n".join(map(_label, here))
        axes.annotate(label, at, xytext=(6, 4), textcoords="offset points", fontsize=8, verticalalignment="top")
    if selection.limits.max_fnmr is not None:
        axes.axvline(100 * selection.limits.max_fnmr, color="0.6", linestyle="--", linewidth=1)
    axes.set_xlabel("clean FNMR in %")
    axes.set_ylabel(f"ASR in %, one-sided 95 % bound, {selection.limits.goal}")
    axes.set_title("full: on the front; red: recommended", fontsize=9)
    # Room for labels on the right, and a scale that does not blow up the difference of equal rates.
    right = 1.3 * max(2.0, 100 * (selection.limits.max_fnmr or 0), *(at[0] for at in places))
    axes.set_xlim(-0.03 * right, right)
    axes.set_ylim(-3, 103)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)


def _label(s: Standing) -> str:
    return s.profile if s.latency_ratio is None else f"{s.profile} (x {s.latency_ratio:.2f})"
