"""Commands on a finished audit: replay, gate, report, compare, results export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.commands.options import (
    COMPLETIONS,
    Deployed,
    Formats,
    Json,
    PolicyName,
    Provider,
    Quiet,
    RequireProvider,
    Threads,
    execution,
    names,
)
from toolkit.commands.show import console, print_document, progress, say

results_app = typer.Typer(help="Export the results of finished audits, pair by pair.", no_args_is_help=True)


@results_app.command("export")
def results_export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .csv or .parquet file to write.")],
) -> None:
    """Write one row for each pair in each scenario of a finished audit, as CSV or Parquet.

    [bold]Examples[/bold]

      sixpixels results export runs/1a2b3c4d -o pairs.csv
    """
    from toolkit.audit.results.export import export_results
    from toolkit.audit.results.outcomes import read_run

    say(f"{output}: {export_results(read_run(run), output)} rows")


def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    on: Annotated[str | None, typer.Option(help="The other verifier: a model as for `audit`.")] = None,
    remote: Annotated[Path | None, typer.Option(help="Or a remote verifier: its remote.toml.")] = None,
    profile: Annotated[
        str,
        typer.Option(help="The profile deployed with the --on verifier.", autocompletion=COMPLETIONS["profiles"]),
    ] = "none",
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="Also craft probes on the run's verifier and on this one at once; may be repeated.",
        ),
    ] = None,
    provider: Provider = "auto",
    require_provider: RequireProvider = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Test the probes of a finished audit on another verifier, and count how many transfer.

    The probes are resampled to the crop of the other verifier. No other command calls a remote verifier. Probes that
    were crafted on several verifiers at once may transfer better: give --source, and the run's attacks by gradients
    craft such probes for its pairs.

    [bold]Examples[/bold]

      sixpixels replay runs/1a2b3c4d --on other.onnx --profile mean3
      sixpixels replay runs/1a2b3c4d --remote remote.toml
      sixpixels replay runs/1a2b3c4d --on other.onnx --source third.onnx
    """
    from toolkit.audit.transfer.transfer import check_transferred, replay_run, result_file
    from toolkit.report.transfer import print_transfer

    asked = execution(provider, require_provider, threads)
    with progress(quiet=quiet or as_json) as shown:
        transfer = replay_run(
            run, on, remote=remote, profile=profile, sources=sources or (), execution=asked, progress=shown
        )
    if as_json:
        print_document(transfer)
    else:
        print_transfer(transfer, console(), result_file(transfer, run))
    check_transferred(transfer)


def gate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    policy: PolicyName = "access-control",
    baseline: Annotated[Path | None, typer.Option(help="Folder of an earlier run; fail if this run is worse.")] = None,
    waivers: Annotated[Path | None, typer.Option(help="A .toml file of findings that somebody accepts.")] = None,
    deployed: Deployed = None,
    formats: Formats = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the reports to this folder. Default: the run's folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge a finished audit by a policy. The exit status is 0 only if it passes.

    Exits with 1 if it fails, 2 if the run is damaged, 3 if too little was tested.

    [bold]Examples[/bold]

      sixpixels gate runs/1a2b3c4d
      sixpixels gate runs/1a2b3c4d --policy policy.toml --baseline runs/last --waivers waivers.toml
      sixpixels gate runs/1a2b3c4d --format terminal,html,sarif,junit
    """
    from toolkit.audit.results.outcomes import read_run
    from toolkit.report.risk import print_judgement
    from toolkit.report.write import TERMINAL, choose_formats, write_reports
    from toolkit.risk.gate import judge_run
    from toolkit.risk.policy import find_policy

    asked, chosen = find_policy(policy), names(formats)
    choose_formats(chosen)
    finished, earlier = read_run(run), None if baseline is None else read_run(baseline)
    judgement = judge_run(finished, asked, baseline=earlier, waivers=waivers, deployed=names(deployed or ""))
    files = write_reports(finished, chosen, output, judgement=judgement, with_faces=False)
    if as_json:
        print_document(judgement)
    elif TERMINAL in chosen:
        print_judgement(judgement, files, console())
    raise typer.Exit(judgement.exit_status)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    formats: Formats = "terminal,html",
    policy: PolicyName = "access-control",
    deployed: Deployed = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the reports to this folder. Default: the run's folder.")
    ] = None,
    with_faces: Annotated[
        bool, typer.Option("--with-faces", help="Show the attacked faces in the HTML report. Faces are personal data.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Report a finished audit again, in any format and under any policy.

    Pictures of probes need the photos, the verifier and the run's probes in their original places.

    [bold]Examples[/bold]

      sixpixels report runs/1a2b3c4d --format html,markdown,sarif
      sixpixels report runs/1a2b3c4d --policy watchlist -o reports
    """
    from toolkit.audit.results.outcomes import read_run
    from toolkit.report.assessment import print_assessment
    from toolkit.report.risk import print_findings, print_overall, print_worst
    from toolkit.report.write import TERMINAL, choose_formats, write_reports
    from toolkit.risk.findings import Judgement
    from toolkit.risk.policy import find_policy
    from toolkit.risk.rate import rate

    asked, chosen = find_policy(policy), names(formats)
    choose_formats(chosen)
    finished = read_run(run)
    judgement = Judgement(rate(finished, asked, names(deployed or "")))
    with progress(quiet=quiet) as shown:
        faces = with_faces or None
        files = write_reports(finished, chosen, output, judgement=judgement, with_faces=faces, progress=shown)
    if TERMINAL in chosen:
        page = console()
        print_overall(judgement.risk, page)
        print_worst(judgement.risk, page)
        print_findings(judgement.risk, page)
        print_assessment(finished.assessment, page, files)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished audits. The first is the reference.")],
    policy: PolicyName = "access-control",
    as_json: Json = False,
) -> None:
    """Compare runs side by side: models, profiles, quantizations or releases.

    Runs on the same pairs are compared by paired tests.

    [bold]Examples[/bold]

      sixpixels compare runs/1a2b3c4d runs/5e6f7a8b
    """
    from toolkit.audit.results.outcomes import read_run
    from toolkit.report.risk import print_comparison
    from toolkit.risk.compare import compare_runs

    comparison = compare_runs([read_run(folder) for folder in runs], policy)
    if as_json:
        print_document(comparison)
    else:
        print_comparison(comparison, console())
