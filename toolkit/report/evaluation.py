"""Terminal reports of evaluations and calibrated thresholds."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from toolkit.audit.evaluate import Evaluation
from toolkit.audit.replaying.detection import DetectorCalibration
from toolkit.report.terminal import (
    LEFT_OUT_SHOWN,
    bullet,
    by_people,
    counted,
    facts_table,
    percent,
    rule,
)
from toolkit.statistics.bounded import Bound
from toolkit.statistics.calibration import Calibration, ThresholdRule

_ESTIMATES = (
    "The thresholds of the best accuracy and of each FMR are point estimates on these pairs, not conservative: "
    "`sixpixels calibrate` gives one whose true FMR is bounded."
)
_BINDING = {
    "independent": "the number of {trials}",
    "effective": "{unit} who are in several {trials}",
    "bootstrap": "the bootstrap over {unit}",
}


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print an evaluation on clean pairs."""
    e = evaluation
    rule(console, f"sixpixels evaluate   {e.model}   {e.provider} ({e.provider_requested} requested)")
    print_warnings(e, console)
    facts = facts_table()
    facts.add_row("pairs", f"{e.genuine} genuine, {e.impostor} impostor, {len(e.left_out)} left out   {e.pairs_source}")
    facts.add_row(f"at the manifest's threshold {e.threshold:g}", "")
    for name, rate, people in (
        ("accuracy", e.clean.accuracy, e.clean.accuracy_people),
        ("FNMR", e.clean.fnmr, e.clean.fnmr_people),
        ("FMR", e.clean.fmr, e.clean.fmr_people),
    ):
        facts.add_row(f"  {name} %", percent(rate) + ("" if people is None else f"   {by_people(people)}"))
    facts.add_row("cross-validated", "")
    facts.add_row("  accuracy %", f"{percent(e.cross_validated.correct)}   {e.folds}")
    facts.add_row("  best threshold", f"{e.best_threshold:.4f} on all these pairs")
    facts.add_row("EER %", "-" if e.clean.eer is None else f"{100 * e.clean.eer:.2f}")
    facts.add_row("d'", "-" if e.clean.d_prime is None else f"{e.clean.d_prime:.2f}")
    for target, point in e.clean.at_fmr:
        value = (
            "too few impostor pairs"
            if point is None
            else (f"{percent(point.fnmr)}   threshold {point.threshold:.4f}, FMR {percent(point.fmr)} %")
        )
        facts.add_row(f"FNMR % at FMR {target:g}", value)
    console.print(facts)
    console.print(_ESTIMATES, style="dim")
    for reason in e.left_out[:LEFT_OUT_SHOWN]:
        bullet(console, f"left out: {reason}")
    if len(e.left_out) > LEFT_OUT_SHOWN:
        bullet(console, f"and {len(e.left_out) - LEFT_OUT_SHOWN} more; --json lists all")


def print_warnings(evaluation: Evaluation, console: Console) -> None:
    """Print what makes an evaluation's numbers worth nothing."""
    for warning in evaluation.warnings:
        console.print(f"WARNING: {warning}", style="bold red")


def print_calibration(result: Calibration, what: str, source: str, console: Console) -> None:
    """Print a calibrated threshold, with its bound and the point estimate beside it."""
    r, (low, high) = result, result.threshold_interval
    facts = facts_table()
    facts.add_row("verifier", what)
    facts.add_row("pairs", f"{r.impostor} impostor, {r.chosen.fnmr.trials} genuine   {source}")
    facts.add_row(f"threshold for FMR {r.fmr:g}", f"{r.chosen.threshold:.6g}   {_rule(r.rule, r.bound)}")
    _add_bound(facts, "FMR", r.bound, "impostor pairs")
    facts.add_row("FMR % on these pairs", percent(r.chosen.fmr))
    facts.add_row("FNMR % on these pairs", percent(r.chosen.fnmr))
    if r.point_estimate is not None and r.rule == "upper bound":
        facts.add_row("point estimate", f"{r.point_estimate.threshold:.6g} [{low:.4f}, {high:.4f}]   not conservative")
        facts.add_row("  FMR % on these pairs", percent(r.point_estimate.fmr))
        facts.add_row("  FNMR % on these pairs", percent(r.point_estimate.fnmr))
    console.print(facts)


def print_detector_calibration(result: DetectorCalibration, what: str, source: str, console: Console) -> None:
    """Print a detector's calibrated threshold, with its bound and the point estimate beside it."""
    r, facts = result, facts_table()
    facts.add_row("detector", what)
    facts.add_row("crops", f"{r.false_alarm.trials} distinct clean crops   {source}")
    facts.add_row(f"threshold for {100 * r.target:g} % false alarms", f"{r.threshold:.6g}   {_rule(r.rule, r.bound)}")
    _add_bound(facts, "false alarms", r.bound, "clean crops")
    facts.add_row("false alarms % on these crops", counted(r.false_alarm))
    if r.rule == "upper bound":
        facts.add_row("point estimate", f"{r.point_estimate:.6g}   not conservative")
    console.print(facts)


def _rule(rule: ThresholdRule, bound: Bound) -> str:
    if rule == "point estimate":
        return "point estimate, NOT conservative"
    return f"upper bound at {100 * bound.confidence:g} % confidence"


def _add_bound(facts: Table, name: str, bound: Bound, trials: str) -> None:
    """Add the bound of a rate, each rule's part in it, and the rule that was binding."""
    unit = bound.unit or "units"
    facts.add_row(f"true {name} %", f"at most {100 * bound.upper:.3g} at {100 * bound.confidence:g} % confidence")
    facts.add_row(f"  independent {trials}", f"{100 * bound.independent:.3g}   {bound.trials} of them")
    if bound.effective is not None:
        told = f"{bound.units} {unit}, as much as {bound.effective_trials:.0f} independent {trials}"
        facts.add_row(
            f"  {unit} who repeat" if unit == "people" else f"  {unit} that repeat",
            f"{100 * bound.effective:.3g}   {told}",
        )
    if bound.bootstrap is not None:
        facts.add_row(f"  bootstrap over {unit}", f"{100 * bound.bootstrap:.3g}")
    if bound.binding is not None:
        facts.add_row("  binding", _BINDING[bound.binding].format(trials=trials, unit=unit))
