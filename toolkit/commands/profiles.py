"""Commands on defense profiles: list, check, write, measure, select."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.commands.options import (
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
    names,
    takes_spread,
)
from toolkit.commands.show import console, print_document, print_json, progress, say, say_file

app = typer.Typer(help="List, check, write, measure and select defense profiles.", no_args_is_help=True)


@app.command("list")
def profiles_list() -> None:
    """List the shipped profiles.

    [bold]Examples[/bold]

      sixpixels profiles list
    """
    from toolkit.profiles.profile import read_profile, shipped_profiles

    for path in shipped_profiles().values():
        profile = read_profile(path)
        say(f"{profile.name:12} {profile.description}")


@app.command("show")
def profiles_show(name: Annotated[str, typer.Argument(help="A shipped profile's name, or a .toml file.")]) -> None:
    """Check a profile and print its text.

    [bold]Examples[/bold]

      sixpixels profiles show balanced
    """
    from toolkit.profiles.profile import find_profile

    say_file(find_profile(name).text)


@app.command("check")
def profiles_check(files: Annotated[list[Path], typer.Argument(help="Profile files.")]) -> None:
    """Check profiles and the model files that they name.

    [bold]Examples[/bold]

      sixpixels profiles check mine.toml other.toml
    """
    from toolkit.profiles.profile import read_profile

    for path in files:
        profile = read_profile(path)
        say(f"{path}: {profile.name}, {len(profile.defenses)} defenses, sha256 {profile.sha256}")


@app.command("new")
def profiles_new(
    output: Annotated[Path, typer.Argument(help="The .toml file to write; it must not exist.")],
    defenses: Annotated[str, typer.Option(help="Defenses in the order they run, separated by commas.")] = "mean",
) -> None:
    """Write a new profile for you to edit, with every parameter of its defenses at the default.

    [bold]Examples[/bold]

      sixpixels profiles new mine.toml --defenses bit-depth,mean
    """
    from toolkit.profiles.profile import write_new_profile

    write_new_profile(output, names(defenses))
    say(output)


@app.command("schema")
def profiles_schema() -> None:
    """Print the JSON Schema of profiles, for editors.

    [bold]Examples[/bold]

      sixpixels profiles schema
    """
    from toolkit.profiles.schema import profile_schema

    print_json(profile_schema())


@app.command("bench")
@takes_spread
def profiles_bench(
    spread: Any,
    model: Model = "facenet-mini",
    profiles: Annotated[
        str | None, typer.Option(help="Names or .toml files, separated by commas. Default: all shipped profiles.")
    ] = None,
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = None,
    seed: Seed = 0,
    repeats: Annotated[int, typer.Option(min=2, help="Timed calls per profile and batch size.")] = 20,
    provider: Provider = "auto",
    require_provider: RequireProvider = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what profiles cost: clean error rates, latency and memory.

    The error rates are given at the manifest's threshold, and at a threshold recalibrated for each profile.

    [bold]Examples[/bold]

      sixpixels profiles bench verifier.onnx --pairs PAIRS --profiles light,balanced
    """
    from toolkit.audit.selection.cost import measure_profiles
    from toolkit.report.selection import print_costs

    wanted = None if profiles is None else names(profiles)
    asked = execution(provider, require_provider, threads)
    with progress(quiet=quiet or as_json) as shown:
        chosen = chosen_pairs(pairs, folds, limit, seed)
        costs = measure_profiles(model, wanted, chosen, repeats=repeats, execution=asked, spread=spread, progress=shown)
    if as_json:
        print_document(costs)
    else:
        print_costs(costs, console())


@app.command("select")
def profiles_select(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    goal: Annotated[
        str, typer.Option(help="The attacker's goal to defend against: dodging, impersonation, or any.")
    ] = "any",
    max_fnmr: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest acceptable clean FNMR, for example 0.1.")
    ] = None,
    max_fmr: Annotated[float | None, typer.Option(min=0, max=1, help="Largest acceptable clean FMR.")] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(min=0, help="Largest acceptable ratio of latency to the bare verifier's.")
    ] = None,
    budget: Annotated[float, typer.Option(min=1e-6, help="Largest RMS of a success that counts, in 1/255.")] = 2.15,
    costs: Annotated[
        Path | None, typer.Option(help="A file of latencies from `profiles bench --json`. Default: measure them now.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The verifier to measure. Default: the one that the run recorded.")
    ] = None,
    profiles: Annotated[
        str,
        typer.Option(help="Files of profiles that are not shipped. Default: those that the run recorded."),
    ] = "",
    plot: Annotated[Path | None, typer.Option(help="Draw the Pareto front into this .png file.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Timed calls per profile.")] = 20,
    provider: Provider = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Recommend one profile of a finished audit that meets your limits, with the Pareto front and paired tests.

    Exits with 3 if no profile meets the limits, or is shown to be better than the bare verifier.

    [bold]Examples[/bold]

      sixpixels profiles select audited --goal impersonation --max-fnmr 0.1 --max-latency-ratio 2
    """
    from toolkit.audit.results.outcomes import read_run
    from toolkit.audit.selection.recommend import select_profile
    from toolkit.audit.selection.select import WANTED, Limits, check_chosen
    from toolkit.registry import choose
    from toolkit.report.selection import print_selection, write_pareto

    wanted = choose("goal", [goal], {name: name for name in WANTED})[0]
    selection = select_profile(
        read_run(run),
        Limits(wanted, max_fnmr, max_fmr, max_latency_ratio, budget),
        costs=costs,
        model=model,
        profiles=names(profiles),
        repeats=repeats,
        execution=execution(provider, None, threads),
    )
    if plot is not None:
        write_pareto(selection, plot)
    if as_json:
        print_document(selection)
    else:
        print_selection(selection, console())
    check_chosen(selection)


@app.command("calibrate-detector")
@takes_spread
def profiles_calibrate_detector(
    spread: Any,
    profile: Annotated[Path, typer.Argument(help="The .toml file of a profile with a [detector]; it is changed.")],
    model: Model = "facenet-mini",
    false_alarm: Annotated[
        float, typer.Option(help="Largest acceptable false alarm rate: the share of clean images that are flagged.")
    ] = 0.05,
    confidence: Confidence = 0.95,
    point_estimate: PointEstimate = False,
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the detector threshold for a false alarm rate, and write it into the profile.

    The true rate is at most this rate, at the stated confidence. The rest of the profile stays the same. The threshold
    holds for this verifier only. Exits with 3 if there are too few clean crops to show the rate.

    [bold]Examples[/bold]

      sixpixels profiles calibrate-detector mine.toml verifier.onnx --false-alarm 0.05 --pairs PAIRS
    """
    from toolkit.audit.evaluate import calibrate_profile
    from toolkit.profiles.profile import read_profile
    from toolkit.report.evaluation import print_detector_calibration
    from toolkit.verifiers.manifest import find_manifest

    name, manifest = read_profile(profile).name, find_manifest(model)
    with progress(quiet=quiet or as_json) as shown:
        chosen = chosen_pairs(pairs, folds, limit, seed)
        result = calibrate_profile(
            profile,
            manifest,
            false_alarm,
            chosen,
            confidence=confidence,
            point_estimate=point_estimate,
            seed=seed,
            spread=spread,
            progress=shown,
        )
    if as_json:
        print_document(result)
    else:
        print_detector_calibration(result, f"{name} before {manifest.name}", chosen.source, console())
