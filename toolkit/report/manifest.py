"""Terminal reports of guessed and checked manifests."""

from __future__ import annotations

import math

from rich.console import Console

from toolkit.audit.evaluate import Evaluation
from toolkit.manifests.guess import Guess, GuessedChoice
from toolkit.manifests.readings import PER_IMAGE
from toolkit.manifests.search import STRETCHING
from toolkit.manifests.wording import NOT_TO_BE_HARDENED
from toolkit.report.evaluation import print_warnings
from toolkit.report.terminal import bullet, facts_table, heading, new_table, percent, rule
from toolkit.verifiers.manifest import Manifest

_LEGEND = (
    "ratio: the mean distance of genuine pairs over that of impostor pairs; channel orders and alignments are compared "
    "by it. d': the distance of the two means in standard deviations; ranges, outputs and metrics are compared by it. "
    "Readings that are clearly worse on some pairs ran on these only. Accuracy is cross-validated, with its 95 % "
    "interval."
)


def print_guess(guess: Guess, console: Console) -> None:
    """Print the best readings, how clearly each choice won, and where the manifest is."""
    rule(console, f"sixpixels manifest guess   {guess.model}")
    facts = facts_table()
    batch = "any" if guess.fixed_batch is None else str(guess.fixed_batch)
    made = f"by {guess.producer}, " if guess.producer else ""
    facts.add_row("file", f"{made}opset {guess.opset}, batch {batch}")
    facts.add_row(
        "pairs", f"{guess.genuine} genuine, {guess.impostor} impostor, {guess.left_out} left out   {guess.pairs_source}"
    )
    facts.add_row("tried", f"{guess.readings} readings, {guess.images_run} images through the model")
    console.print(facts)
    console.print()
    table = new_table("the best readings", console)
    # A column for what all have in common would only take space.
    named = {"range": "range", "order": "channels", "crop": "alignment", "layout": "layout", "output": "output",
             "metric": "metric"}  # fmt: skip
    varied = {name: key for name, key in named.items() if len({getattr(r, key) for r in guess.best}) > 1}
    for name in varied:
        table.add_column(name, overflow="fold")
    for name in ("pairs", "accuracy %", "EER %", "d'", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in guess.best:
        told = (str(r.pairs), percent(r.accuracy), f"{100 * r.eer:.1f}", f"{r.separation:.2f}", f"{r.ratio:.3f}")
        table.add_row(*(getattr(r, key) for key in varied.values()), *told)
    console.print(table)
    console.print(_LEGEND, style="dim")
    heading(console, "How clearly each choice won")
    for choice in guess.choices:
        bullet(console, f"{choice.what}: {choice.chosen}, {_verdict(choice)}")
    if guess.best[0].range == PER_IMAGE:
        bullet(console, NOT_TO_BE_HARDENED)
    heading(console, "Files")
    bullet(console, guess.manifest)


def _verdict(choice: GuessedChoice) -> str:
    if choice.verdict == "stated":
        return "as the file says"
    if choice.verdict == "only":
        return "nothing else was possible"
    if choice.verdict == "tie":
        return f"a TIE: these pairs do not tell it from {', '.join(choice.ties)}"
    low, high = choice.difference or (0.0, 0.0)
    if choice.what in STRETCHING:
        return f"clearly better than {choice.nearest} (d' larger by {low:.2f} to {high:.2f})"
    less = (100 * (1 - math.exp(-value)) for value in (low, high))
    return f"clearly better than {choice.nearest} (ratio smaller by {' to '.join(f'{share:.0f}' for share in less)} %)"


def print_check(manifest: Manifest, evaluation: Evaluation, console: Console) -> None:
    """Print whether a manifest fits its file and the pairs."""
    rule(console, f"sixpixels manifest check   {manifest.path}")
    e, spec, output = evaluation, manifest.input, manifest.output
    facts = facts_table()
    facts.add_row("input", f"fits: {spec.name}, {spec.layout}, {spec.height} x {spec.width}, {spec.channels}")
    facts.add_row("output", f"fits: {output.name}, {output.size} numbers")
    facts.add_row("pairs", f"{e.genuine} genuine, {e.impostor} impostor, {len(e.left_out)} left out   {e.pairs_source}")
    facts.add_row("accuracy %", f"{percent(e.clean.accuracy)} at the threshold {e.threshold:g}")
    facts.add_row("  at the best one", f"{percent(e.cross_validated.correct)}, cross-validated; {e.best_threshold:.4f}")
    apart = "-" if e.clean.d_prime is None else f"{e.clean.d_prime:.2f}"
    equal = "-" if e.clean.eer is None else f"{100 * e.clean.eer:.1f}"
    facts.add_row("EER %, d'", f"{equal}, {apart}")
    console.print(facts)
    print_warnings(e, console)
    if not e.warnings:
        console.print("Nothing speaks against this manifest.")
