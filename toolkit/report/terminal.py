"""The terminal report: one page that reads at 80 columns, with or without color."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from toolkit.audit.assessment import Assessment, ScenarioResult
from toolkit.audit.evaluate import Evaluation
from toolkit.audit.sanity import Check
from toolkit.statistics.calibration import Calibration
from toolkit.statistics.intervals import Rate

if TYPE_CHECKING:
    from toolkit.audit.cost import Costs
    from toolkit.audit.detection import DetectionResult, DetectorCalibration
    from toolkit.export.compare import QuantizationReport
    from toolkit.export.run import ExportReport

_CERTIFICATION_LEGEND = (
    "Of the verifier that decides as most of {samples} draws of Gaussian noise do (its standard deviation in pixel "
    "units), and of no other. right: decided correctly; none: abstains; >: right, and no attack changes it within this "
    "L2 norm, at {confidence:g} % for each pair; r: the median radius of what is right."
)
_LEFT_OUT_SHOWN = 3
_ALARMING = 0.5
_ASCII_HEAD = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_LEGEND = (
    "n: eligible pairs, which the target decided correctly before the attack; clean errors are never successes. "
    "crafted: of these, flipped on the attacker's own model. ASR: successes in 8 bits over n, 95 % Wilson interval; "
    "float: the same before rounding to 8 bits; L2<1: ASR within an L2 norm of 1. RMS (in 1/255) and L2 (pixel range "
    "1): medians of the successes. knows: zero is crafted against the bare verifier, perfect against this profile, "
    "query by asking it, a profile's name against that one."
)
_QUERY_LEGEND = (
    "Of eligible pairs, those that had succeeded and were done within so many queries, the way to 8 bits included. "
    "What goes on to come nearer after its first success takes its whole budget."
)
_DETECTION_LEGEND = (
    "deployed: at the profile's threshold; FA: at the threshold with that share of false alarms on this run's clean "
    "crops, - where they are too few. A flagged probe is no success, and a pair whose clean probe is flagged is not "
    "eligible."
)
_METRICS = {"squared-euclidean": "squared L2", "euclidean": "L2", "cosine": "cosine distance"}


def percent(rate: Rate, *, interval: bool = True) -> str:
    """A rate in percent, with its 95 % Wilson interval."""
    if rate.value is None:
        return "no pairs"
    low, high = rate.wilson()
    return f"{100 * rate.value:.1f}" + (f" [{100 * low:.1f}, {100 * high:.1f}]" if interval else "")


def print_assessment(assessment: Assessment, console: Console, files: list[Path]) -> None:
    """Print the risk report."""
    a, target = assessment, assessment.target
    console.print()
    console.rule(f"sixpixels audit   run {a.run}   seed {a.seed}", characters="─" if _unicode(console) else "-")
    facts = facts_table()
    facts.add_row("target", f"{target.name}   {target.model}   sha256 {_short(target.model_sha256)}")
    facts.add_row(
        "runs on", f"{target.provider} ({target.provider_requested} asked for), ONNX Runtime {target.onnxruntime}"
    )
    facts.add_row("decision", f"same when {_METRICS[target.metric]} < {target.threshold:g}")
    facts.add_row("pairs", _what_pairs(a))
    if a.parity is not None:
        facts.add_row(
            "parity",
            f"ONNX Runtime vs TensorFlow {target.tensorflow or ''} (gradients from {target.gradients_from}): "
            f"largest embedding difference "
            f"{a.parity.largest_embedding_difference:.1e}, flipped decisions {a.parity.flips}/{a.parity.pairs}",
        )
    console.print(facts)
    status = "" if a.complete else "   INCOMPLETE: not every attack could be run."
    if not a.valid:
        status += "   INVALID: a sanity check failed, so low success rates may be the attacks' fault."
    console.print(Panel(Text(a.worst + status, style="bold"), title="worst finding", box=box_of(console)))
    console.print(_clean_table(a, console))
    for goal in dict.fromkeys(s.goal for s in a.scenarios):
        console.print(_attack_table([s for s in a.scenarios if s.goal == goal], console))
    console.print(_LEGEND, style="dim")
    _print_queries(a.scenarios, console)
    _print_checks(a.checks, console)
    _print_detection(a, console)
    _print_certification(a, console)
    if a.caveats:
        heading(console, "caveats")
        for caveat in a.caveats:
            bullet(console, caveat)
    if a.left_out:
        heading(console, "left out")
        for reason in a.left_out[:_LEFT_OUT_SHOWN]:
            bullet(console, reason)
        if len(a.left_out) > _LEFT_OUT_SHOWN:
            bullet(console, f"and {len(a.left_out) - _LEFT_OUT_SHOWN} more, in report.json")
    heading(console, "files")
    for path in files:
        bullet(console, str(path))


def _what_pairs(a: Assessment) -> str:
    kinds = f"{a.genuine} genuine, {a.impostor} impostor"
    if a.group is not None:
        kinds = f"{a.impostor} probes of strangers against each of {a.group} enrolled people"
    return f"{kinds}, {len(a.left_out)} left out   {a.pairs_source}"


def _knows(of: ScenarioResult | DetectionResult) -> str:
    return of.known if of.knowledge == "partial" else of.knowledge


def _print_queries(scenarios: Sequence[ScenarioResult], console: Console) -> None:
    """Success against queries, where queries are bounded."""
    curves = [s for s in scenarios if s.asr_at_queries]
    if not curves:
        return
    counts = sorted({count for s in curves for count, _ in s.asr_at_queries})
    table = new_table("success % within so many queries", console)
    for column in ("attack", "profile", "knows", "goal"):
        table.add_column(column, no_wrap=True)
    for count in counts:
        table.add_column(str(count), justify="right", no_wrap=True)
    for s in curves:
        within = dict(s.asr_at_queries)
        cells = [whole_percent(within[c], interval=False) if c in within else "" for c in counts]
        goal = "dodge" if s.goal == "dodging" else "imp."
        table.add_row(s.attack, s.profile, _knows(s), goal, *cells)
    console.print(table)
    console.print(_QUERY_LEGEND, style="dim")


def _print_checks(checks: Sequence[Check], console: Console) -> None:
    """What failed, in full; what passed, counted."""
    if not checks:
        return
    passed = Counter(check.name for check in checks if check.passed)
    heading(console, "sanity checks")
    bullet(console, "passed: " + (", ".join(f"{name} {count}" for name, count in passed.items()) or "none"))
    for check in checks:
        if not check.passed:
            bullet(console, f"FAILED: {check.name}, {check.about}: {check.detail}")


def _print_detection(a: Assessment, console: Console) -> None:
    if not a.detection:
        return
    facts = facts_table()
    for c in a.clean:
        if c.false_alarm is not None:
            facts.add_row("false alarms %", f"{c.profile}   {_counted(c.false_alarm)} of the distinct clean crops")
    console.print()
    console.print(facts)
    table = new_table("detected % of the probes whose decision is at the goal", console)
    for column in ("attack", "profile", "knows", "goal"):
        table.add_column(column, no_wrap=True)
    for column in ("n", "deployed", *(f"{100 * p.false_alarm:g} % FA" for p in a.detection[0].points)):
        table.add_column(column, justify="right", no_wrap=True)
    for d in a.detection:
        points = ["-" if p.detected is None else whole_percent(p.detected, interval=False) for p in d.points]
        deployed = whole_percent(d.deployed)
        table.add_row(d.attack, d.profile, _knows(d), d.goal, str(d.deployed.trials), deployed, *points)
    console.print(table)
    console.print(_DETECTION_LEGEND, style="dim")


def _print_certification(a: Assessment, console: Console) -> None:
    if not a.certification:
        return
    table = new_table("certified by randomized smoothing, %", console)
    table.add_column("profile", overflow="fold")
    for column in ("noise", "goal", "n", "right", "none", *(f">{r:g}" for r, _ in a.certification[0].at_radius), "r"):
        table.add_column(column, justify="left" if column == "goal" else "right", no_wrap=True)
    for c in a.certification:
        rates = (c.correct, c.abstained, *(rate for _, rate in c.at_radius))
        shares = (whole_percent(rate, interval=False) for rate in rates)
        goal = c.goal.replace("impersonation", "imperson.")
        table.add_row(c.profile, f"{c.sigma:g}", goal, str(c.correct.trials), *shares, norm(c.median_radius))
    console.print(table)
    c = a.certification[0]
    console.print(_CERTIFICATION_LEGEND.format(samples=c.samples, confidence=100 * c.confidence), style="dim")


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print clean verification."""
    e = evaluation
    console.rule(f"sixpixels evaluate   {e.model}   {e.provider}", characters="─" if _unicode(console) else "-")
    facts = facts_table()
    facts.add_row("pairs", f"{e.genuine} genuine, {e.impostor} impostor, {len(e.left_out)} left out   {e.pairs_source}")
    facts.add_row(f"at the manifest's threshold {e.threshold:g}", "")
    for name, rate, people in (
        ("accuracy", e.clean.accuracy, e.clean.accuracy_people),
        ("FNMR", e.clean.fnmr, e.clean.fnmr_people),
        ("FMR", e.clean.fmr, e.clean.fmr_people),
    ):
        facts.add_row(f"  {name} %", percent(rate) + ("" if people is None else f"   {_by_people(people)}"))
    facts.add_row("cross-validated", "")
    facts.add_row("  accuracy %", f"{percent(e.cross_validated.correct)}   {e.folds}")
    facts.add_row("  best threshold", f"{e.best_threshold:.4f} on all these pairs")
    facts.add_row("EER %", "-" if e.clean.eer is None else f"{100 * e.clean.eer:.2f}")
    facts.add_row("d'", "-" if e.clean.d_prime is None else f"{e.clean.d_prime:.2f}")
    for target, point in e.clean.at_fmr:
        value = (
            "too few impostor pairs to say"
            if point is None
            else (f"{percent(point.fnmr)}   threshold {point.threshold:.4f}, FMR {percent(point.fmr)} %")
        )
        facts.add_row(f"FNMR % at FMR {target:g}", value)
    console.print(facts)
    for reason in e.left_out[:_LEFT_OUT_SHOWN]:
        bullet(console, f"left out {reason}")
    if len(e.left_out) > _LEFT_OUT_SHOWN:
        bullet(console, f"and {len(e.left_out) - _LEFT_OUT_SHOWN} more, with --json")


def _by_people(interval: tuple[float, float]) -> str:
    return f"people: [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _clean_table(a: Assessment, console: Console) -> Table:
    table = new_table("clean error, 95 % interval", console)
    for column in ("profile", "FNMR %", "FMR %", "EER %"):
        table.add_column(column, justify="left" if column == "profile" else "right")
    for c in a.clean:
        rates = ((c.fnmr, c.fnmr_people), (c.fmr, c.fmr_people))
        cells = (_counted(r) + ("" if people is None else f"\n{_by_people(people)}") for r, people in rates)
        table.add_row(c.profile, *cells, "-" if c.eer is None else f"{100 * c.eer:.1f}")
    return table


def _attack_table(scenarios: list[ScenarioResult], console: Console) -> Table:
    table = new_table(f"attack success: {scenarios[0].goal}", console)
    for column in ("attack", "profile", "knows"):
        table.add_column(column, no_wrap=True)
    for column in ("n", "crafted", "ASR % [95 %]", "float", "L2<1", "RMS", "L2"):
        table.add_column(column, justify="right", no_wrap=True)
    previous = ""
    for s in scenarios:
        within = dict(s.asr_at_l2)[1.0]
        table.add_row(
            s.attack if s.attack != previous else "",
            s.profile,
            _knows(s) if s.profile != "none" else "",
            str(s.eligible),
            str(s.crafted),
            whole_percent(s.asr),
            "-" if s.asr_float.value is None else f"{100 * s.asr_float.value:.0f}",
            "-" if within.value is None else f"{100 * within.value:.0f}",
            norm(s.median_rms),
            norm(s.median_l2),
            style="bold" if s.asr.value and s.asr.value >= _ALARMING else None,
        )
        previous = s.attack
    return table


def norm(value: float | None) -> str:
    """A norm in at most four characters, so that no column is cut off at 80."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def whole_percent(rate: Rate, *, interval: bool = True) -> str:
    """A rate in whole percent, with its 95 % Wilson interval."""
    if rate.value is None:
        return "no pairs"
    low, high = rate.wilson()
    return f"{100 * rate.value:.0f}" + (f" [{100 * low:.0f},{100 * high:.0f}]" if interval else "")


def _counted(rate: Rate) -> str:
    return f"{rate.successes}/{rate.trials}  {percent(rate)}"


def facts_table() -> Table:
    """A grid of names and values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def new_table(title: str, console: Console) -> Table:
    """A table without edges, in ASCII where the console knows nothing else."""
    rule = box.SIMPLE_HEAD if _unicode(console) else _ASCII_HEAD
    return Table(title=title, title_justify="left", title_style="bold", box=rule, padding=(0, 1, 0, 0), show_edge=False)


def box_of(console: Console) -> box.Box:
    """The edges of a panel, in ASCII where the console knows nothing else."""
    return box.ROUNDED if _unicode(console) else box.ASCII


def plain_console() -> Console:
    """Standard output on which nothing that is printed is markup: names and paths may have brackets."""
    return Console(highlight=False, markup=False)


def heading(console: Console, text: str) -> None:
    """Print what begins a list."""
    console.print(f"\n{text}", style="bold")


def bullet(console: Console, text: str) -> None:
    """Print a line of a list, its further lines indented."""
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row("  -", Text(text))
    console.print(row)


def _unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _short(digest: str) -> str:
    return f"{digest[:4]}..{digest[-4:]}"


def print_costs(result: Costs, console: Console) -> None:
    """Print what profiles cost, beside the bare verifier."""
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
            console.print(f"{c.profile}: detector flags {_counted(c.false_alarm)} % of the distinct clean crops")


def print_detector_calibration(result: DetectorCalibration, what: str, source: str, console: Console) -> None:
    """Print a detector's calibrated threshold."""
    facts = facts_table()
    facts.add_row("detector", what)
    facts.add_row("crops", f"{result.false_alarm.trials} distinct clean ones   {source}")
    facts.add_row(f"threshold for false alarms of {100 * result.target:g} %", f"{result.threshold:.6g}")
    facts.add_row("false alarms % on these crops", _counted(result.false_alarm))
    console.print(facts)


def print_calibration(result: Calibration, what: str, source: str, console: Console) -> None:
    """Print a calibrated threshold."""
    low, high = result.threshold_interval
    facts = facts_table()
    facts.add_row("verifier", what)
    facts.add_row("pairs", f"{result.impostor} impostor, {result.point.fnmr.trials} genuine   {source}")
    facts.add_row(f"threshold for FMR {result.fmr:g}", f"{result.point.threshold:.4f} [{low:.4f}, {high:.4f}]")
    facts.add_row("FMR % on these pairs", percent(result.point.fmr))
    facts.add_row("FNMR % at it", percent(result.point.fnmr))
    console.print(facts)


def print_export(report: ExportReport, console: Console) -> None:
    """Print what was exported and how it compares with the original."""
    facts = facts_table()
    facts.add_row("written", f"{report.result.path}   opset {report.result.opset}")
    facts.add_row("sha256", report.result.sha256)
    for parity in report.parities:
        facts.add_row("provider", parity.provider)
        facts.add_row(
            "  crops", str(parity.crops) + ("" if report.real_crops else " of noise; give --pairs for real ones")
        )
        facts.add_row(
            "  largest difference",
            f"embedding {parity.largest_embedding_difference:.1e}, distance {parity.largest_distance_difference:.1e}",
        )
        facts.add_row("  flipped decisions", f"{parity.flips}/{parity.pairs}")
    console.print(facts)


def print_quantization(report: QuantizationReport, console: Console) -> None:
    """Print what was written and how it compares with the original."""
    r, facts = report, facts_table()
    facts.add_row("written", f"{r.written.path}   {r.to}")
    facts.add_row("sha256", r.written.sha256)
    facts.add_row("size", f"{r.written.bytes_after / 1e6:.2f} MB, was {r.written.bytes_before / 1e6:.2f} MB")
    facts.add_row("runs on", r.parity.provider)
    if r.calibrated_on:
        facts.add_row("calibrated on", f"{r.calibrated_on} crops of people who are in no pair below")
    facts.add_row("pairs", f"{r.parity.pairs}   {r.pairs_source}")
    facts.add_row("embedding cosine", f"mean {r.cosine_mean:.5f}, smallest {r.cosine_min:.5f}")
    facts.add_row("relative difference", f"largest {r.relative_max:.1e}, 99 % of crops below {r.relative_p99:.1e}")
    facts.add_row("largest difference", f"distance {r.parity.largest_distance_difference or 0:.1e}")
    facts.add_row("flipped decisions", f"{r.flips.successes}/{r.flips.trials}   {percent(r.flips)} %")
    facts.add_row("FNMR %", f"{percent(r.after.fnmr)}, was {percent(r.before.fnmr)}")
    facts.add_row("FMR %", f"{percent(r.after.fmr)}, was {percent(r.before.fmr)}")
    if r.score_difference is not None:
        facts.add_row("attack score", f"differs by at most {r.score_difference:.1e}")
    if r.alarms is not None:
        facts.add_row("changed alarms", f"{r.alarms.successes}/{r.alarms.trials} crops   {percent(r.alarms)} %")
    first, third = r.latency_quartiles
    verdict = "slower here" if first > 1 else "faster here" if third < 1 else "no faster here"
    facts.add_row("latency", f"{r.latency_ratio:.2f} of the original's ({first:.2f} to {third:.2f}): {verdict}")
    console.print(facts)
