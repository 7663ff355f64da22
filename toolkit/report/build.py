"""Terminal reports of exported and quantized models."""

from __future__ import annotations

from rich.console import Console

from toolkit.export.compare import QuantizationReport
from toolkit.export.run import ExportReport
from toolkit.report.terminal import (
    facts_table,
    percent,
)


def print_export(report: ExportReport, console: Console) -> None:
    """Print the exported model, and its differences from the original."""
    facts = facts_table()
    facts.add_row("written", f"{report.result.path}   opset {report.result.opset}")
    facts.add_row("sha256", report.result.sha256)
    for parity in report.parities:
        facts.add_row("provider", parity.provider)
        facts.add_row(
            "  crops", str(parity.crops) + ("" if report.real_crops else " of noise; give --pairs for real faces")
        )
        facts.add_row(
            "  largest difference",
            f"embedding {parity.largest_embedding_difference:.1e}, distance {parity.largest_distance_difference:.1e}",
        )
        facts.add_row("  flipped decisions", f"{parity.flips}/{parity.pairs}")
    console.print(facts)


def print_quantization(report: QuantizationReport, console: Console) -> None:
    """Print the quantized model, and its differences from the original."""
    r, facts = report, facts_table()
    facts.add_row("written", f"{r.written.path}   {r.to}")
    facts.add_row("sha256", r.written.sha256)
    facts.add_row("size", f"{r.written.bytes_after / 1e6:.2f} MB, was {r.written.bytes_before / 1e6:.2f} MB")
    facts.add_row("runs on", r.parity.provider)
    if r.calibrated_on:
        facts.add_row("calibrated on", f"{r.calibrated_on} crops of people who are not in the pairs below")
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
    verdict = "slower here" if first > 1 else "faster here" if third < 1 else "not faster here"
    facts.add_row("latency", f"{r.latency_ratio:.2f} of the original's ({first:.2f} to {third:.2f}): {verdict}")
    console.print(facts)
