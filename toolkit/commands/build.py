"""Commands that write models: export, harden, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.commands.options import (
    Folds,
    Json,
    Limit,
    Model,
    Pairs,
    Profile,
    Provider,
    Quiet,
    RequireProvider,
    Seed,
    Threads,
    chosen_pairs,
    execution,
)
from toolkit.commands.show import console, print_document, progress, say


def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    pairs: Annotated[
        Path | None, typer.Option(help="Face pairs to check parity on. Without them, decisions are not checked.")
    ] = None,
    folds: Folds = None,
    limit: Limit = 100,
    seed: Seed = 0,
    max_flips: Annotated[int, typer.Option(min=0, help="Accept at most this many flipped decisions.")] = 0,
    opset: Annotated[int, typer.Option(min=13, max=18, help="Version of the ONNX operator set.")] = 17,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a model's original checkpoint to ONNX, and compare the two models on every installed provider.

    [bold]Examples[/bold]

      sixpixels export facenet-mini -o out.onnx
      sixpixels export models/20180402-114759/model.toml -o facenet.onnx --pairs LFW
    """
    from toolkit.export.run import export_verifier
    from toolkit.report.build import print_export
    from toolkit.verifiers.parity import check_flips

    with progress(quiet=quiet or as_json) as shown:
        chosen = chosen_pairs(pairs, folds, limit, seed) if pairs else None
        result = export_verifier(model, output, chosen, opset=opset, progress=shown)
    if as_json:
        print_document(result)
    else:
        print_export(result, console())
    check_flips(result.parities, max_flips)


def harden(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    profile: Profile = "mean3",
) -> None:
    """Build a profile into a verifier: one ONNX file that replaces the original.

    [bold]Examples[/bold]

      sixpixels harden verifier.onnx --profile balanced -o hardened.onnx
    """
    from toolkit.profiles.harden import harden_verifier

    written = harden_verifier(model, profile, output)
    say(f"{written.path}   sha256 {written.sha256}")
    say(written.manifest)


def quantize(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    to: Annotated[str, typer.Option(help="Precision: int8 (static, per channel, calibrated) or fp16.")] = "int8",
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = None,
    seed: Seed = 0,
    calibration: Annotated[
        int, typer.Option(min=1, help="Calibrate int8 on this many crops. Their people are in no tested pair.")
    ] = 32,
    max_flips: Annotated[int, typer.Option(min=0, help="Accept at most this many flipped decisions.")] = 0,
    provider: Provider = "auto",
    require_provider: RequireProvider = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Quantize a verifier, bare or hardened, to int8 or fp16, and compare it with the original on face pairs.

    Input, output, threshold and defenses stay the same.

    [bold]Examples[/bold]

      sixpixels quantize facenet-mini --to int8 -o int8.onnx --pairs LFW --limit 600 --max-flips 30
    """
    from toolkit.export.compare import quantize_verifier
    from toolkit.export.quantize import PRECISIONS
    from toolkit.registry import choose
    from toolkit.report.build import print_quantization
    from toolkit.verifiers.parity import check_flips

    precision = choose("precision", [to], {name: name for name in PRECISIONS})[0]
    asked = execution(provider, require_provider, threads)
    with progress(quiet=quiet or as_json) as shown:
        chosen = chosen_pairs(pairs, folds, limit, seed)
        report = quantize_verifier(
            model, output, precision, chosen, calibration=calibration, seed=seed, execution=asked, progress=shown
        )
    if as_json:
        print_document(report)
    else:
        print_quantization(report, console())
    check_flips([report.parity], max_flips)
