"""The command that rebuilds enrolled faces from a verifier's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.commands.options import (
    COMPLETIONS,
    Folds,
    Json,
    Limit,
    Model,
    Profile,
    Provider,
    Quiet,
    RequireProvider,
    Seed,
    Threads,
    chosen_pairs,
    execution,
)
from toolkit.commands.show import console, print_document, progress


def reconstruct(
    target: Model,
    surrogate: Annotated[
        str,
        typer.Option(
            help="The attacker's own model, as for the target. The target itself is the strongest.",
            autocompletion=COMPLETIONS["models"],
        ),
    ],
    pairs: Annotated[
        Path, typer.Option(help="Labeled face pairs. The first reference photo of each person is attacked.")
    ],
    faces: Annotated[
        Path | None,
        typer.Option(
            help="The fixed set of faces, as labeled pairs of other people. Default: the generated faces that ship "
            "with the toolkit."
        ),
    ] = None,
    profile: Profile = "none",
    folds: Folds = None,
    limit: Limit = None,
    seed: Seed = 0,
    provider: Provider = "auto",
    require_provider: RequireProvider = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild enrolled faces from the scores of a fixed set of faces, and count how many are accepted.

    The attacker reads one score for each face, solves for the embedding, and builds an image of it with a model of
    their own. A verifier that returns no scores is not exposed to this attack.

    [bold]Examples[/bold]

      sixpixels reconstruct other.onnx --surrogate facenet-mini --pairs LFW --limit 40
      sixpixels reconstruct facenet-mini --surrogate facenet-mini --pairs LFW --faces people
    """
    from toolkit.audit.transfer.reconstruct import reconstruct_faces
    from toolkit.report.reconstruct import print_reconstruction

    asked = execution(provider, require_provider, threads)
    people = chosen_pairs(pairs, folds, limit, seed)
    with progress(quiet=quiet or as_json) as shown:
        result = reconstruct_faces(
            target, surrogate, people, faces=faces, profile=profile, execution=asked, seed=seed, progress=shown
        )
    if as_json:
        print_document(result)
    else:
        print_reconstruction(result, console())
