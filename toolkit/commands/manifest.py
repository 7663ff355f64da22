"""Commands on manifests: guess, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.commands.options import Folds, Json, Limit, Model, Pairs, Quiet, Seed, Threads, chosen_pairs
from toolkit.commands.show import console, print_document, progress

app = typer.Typer(help="Write and check manifests: how a verifier's file is read.", no_args_is_help=True)

_INSUFFICIENT = 3


@app.command()
def guess(
    model: Annotated[Path, typer.Argument(help="An .onnx file. It needs no manifest.")],
    pairs: Pairs = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The manifest. Default: beside the model, with .toml.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest that is there.")] = False,
    folds: Folds = None,
    limit: Limit = 200,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find out how to read a bare model file, by trying, and write its manifest.

    It tries value ranges, channel orders, alignments, outputs and metrics on labeled pairs. The manifest says what is
    certain, what was found by trying, and how clearly it won. Exits with 3 if no combination tells the people apart.

    [bold]Examples[/bold]

      sixpixels manifest guess verifier.onnx --pairs LFW
      sixpixels manifest guess verifier.onnx --pairs PEOPLE --limit 400 -o model.toml
    """
    from toolkit.manifests.guess import guess_manifest
    from toolkit.report.manifest import print_guess

    with progress(quiet=quiet or as_json) as shown:
        chosen = chosen_pairs(pairs, folds, limit, seed)
        found = guess_manifest(
            model, chosen, output, overwrite=overwrite, seed=seed, threads=threads, progress=shown
        )  # fmt: skip
    if as_json:
        print_document(found)
    else:
        print_guess(found, console())


@app.command()
def check(
    model: Model,
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = 200,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a manifest as an audit would: the file fits, embeddings differ, people are told apart, the threshold fits.

    Exits with 3 if there is a warning.

    [bold]Examples[/bold]

      sixpixels manifest check verifier.toml --pairs LFW
    """
    from toolkit.audit.evaluate import evaluate_verifier
    from toolkit.commands.options import execution
    from toolkit.report.manifest import print_check
    from toolkit.verifiers.manifest import find_manifest

    manifest = find_manifest(model)
    with progress(quiet=quiet or as_json) as shown:
        chosen = chosen_pairs(pairs, folds, limit, seed)
        found = evaluate_verifier(
            manifest, chosen, seed=seed, execution=execution("auto", None, threads), progress=shown
        )  # fmt: skip
    if as_json:
        print_document(found)
    else:
        print_check(manifest, found, console())
    if found.warnings:
        raise typer.Exit(_INSUFFICIENT)
