"""Terminal reports of evaluations and calibrated thresholds."""

from __future__ import annotations

from rich.console import Console

from toolkit.audit.clean.evaluate import Evaluation
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
from toolkit.statistics.calibration import Calibration


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print an evaluation on clean pairs."""
    e = evaluation
    rule(console, f"sixpixels evaluate   {e.model}   {e.provider} ({e.provider_requested} requested)")
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
    for reason in e.left_out[:LEFT_OUT_SHOWN]:
        bullet(console, f"left out: {reason}")
    if len(e.left_out) > LEFT_OUT_SHOWN:
        bullet(console, f"and {len(e.left_out) - LEFT_OUT_SHOWN} more; --json lists all")


def print_calibration(result: Calibration, what: str, source: str, console: Console) -> None:
    """Print a calibrated threshold."""
    low, high = result.threshold_interval
    facts = facts_table()
    facts.add_row("verifier", what)
    facts.add_row("pairs", f"{result.impostor} impostor, {result.point.fnmr.trials} genuine   {source}")
    facts.add_row(f"threshold for FMR {result.fmr:g}", f"{result.point.threshold:.4f} [{low:.4f}, {high:.4f}]")
    facts.add_row("FMR % on these pairs", percent(result.point.fmr))
    facts.add_row("FNMR % on these pairs", percent(result.point.fnmr))
    console.print(facts)


def print_detector_calibration(result: DetectorCalibration, what: str, source: str, console: Console) -> None:
    """Print a detector's calibrated threshold."""
    facts = facts_table()
    facts.add_row("detector", what)
    facts.add_row("crops", f"{result.false_alarm.trials} distinct clean crops   {source}")
    facts.add_row(f"threshold for {100 * result.target:g} % false alarms", f"{result.threshold:.6g}")
    facts.add_row("false alarms % on these crops", counted(result.false_alarm))
    console.print(facts)
