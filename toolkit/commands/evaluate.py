"""Commands on clean pairs: evaluate, calibrate."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from toolkit.commands.options import (
    COMPLETIONS,
    Confidence,
    Folds,
    Json,
    Limit,
    Model,
    Pairs,
    PointEstimate,
    Provider,
    Quiet,
    RequireProvider,
    Seed,
    Threads,
    chosen_pairs,
    execution,
    takes_spread,
)
from toolkit.commands.show import console, print_document, progress


@takes_spread
def evaluate(
    spread: Any,
    model: Model = "facenet-mini",
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = None,
    seed: Seed = 0,
    provider: Provider = "auto",
    require_provider: RequireProvider = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a verifier on clean pairs, without attacks: accuracy, EER and FNMR at fixed FMR, with intervals.

    [bold]Examples[/bold]

      sixpixels evaluate
      sixpixels evaluate verifier.onnx --pairs LFW --folds 7,8
    """
    from toolkit.audit.evaluate import evaluate_verifier
    from toolkit.report.evaluation import print_evaluation

    asked = execution(provider, require_provider, threads)
    with progress(quiet=quiet or as_json) as shown:
        chosen = chosen_pairs(pairs, folds, limit, seed)
        evaluation = evaluate_verifier(model, chosen, seed=seed, execution=asked, spread=spread, progress=shown)
    if as_json:
        print_document(evaluation)
    else:
        print_evaluation(evaluation, console())


@takes_spread
def calibrate(
    spread: Any,
    model: Model = "facenet-mini",
    fmr: Annotated[float, typer.Option(help="The false match rate to hold, for example 1e-3.")] = 1e-2,
    profile: Annotated[
        str,
        typer.Option(help="The profile that the verifier is deployed with.", autocompletion=COMPLETIONS["profiles"]),
    ] = "none",
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = None,
    confidence: Confidence = 0.95,
    point_estimate: PointEstimate = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write the threshold into the manifest, and how it was chosen.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the largest threshold that holds a false match rate (FMR).

    The true FMR is at most this rate, at the stated confidence. People who are in several pairs are allowed for. The
    point estimate is printed beside it. Exits with 3 if there are too few pairs to show the rate.

    [bold]Examples[/bold]

      sixpixels calibrate hardened.onnx --fmr 1e-2 --pairs PAIRS
      sixpixels calibrate hardened.onnx --fmr 1e-3 --confidence 0.99 --pairs PAIRS --write
    """
    from toolkit.audit.evaluate import calibrate_verifier
    from toolkit.profiles.profile import find_profile
    from toolkit.report.evaluation import print_calibration
    from toolkit.verifiers.manifest import find_manifest

    manifest, deployed = find_manifest(model), find_profile(profile)
    with progress(quiet=quiet or as_json) as shown:
        chosen = chosen_pairs(pairs, folds, limit, seed)
        result = calibrate_verifier(
            manifest,
            fmr,
            deployed,
            chosen,
            confidence=confidence,
            point_estimate=point_estimate,
            write=write,
            seed=seed,
            spread=spread,
            progress=shown,
        )
    if as_json:
        print_document(result)
    else:
        print_calibration(result, f"{manifest.name} behind {deployed.name}", chosen.source, console())
