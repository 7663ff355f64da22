"""Commands that attack: audit, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.commands.options import Config, Json, Quiet, numbers, takes_audit_options
from toolkit.commands.show import console, print_document, progress
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.audit.options import AuditOptions
    from toolkit.audit.results.outcomes import Run
    from toolkit.risk.policy import Policy


@takes_audit_options
def audit(
    given: dict[str, Any],
    config: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the plan, and estimate its time and disk space.")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="With --dry-run: save the options to this new .toml file.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Attack a verifier, bare and behind each profile, and report the risk.

    To continue an interrupted audit, give the same command again.

    An option on the command line overrides the environment (SIXPIXELS_SEED), which overrides audit.toml.

    [bold]Examples[/bold]

      sixpixels audit
      sixpixels audit verifier.onnx --pairs PAIRS --limit 100 --profiles none,mean3
      sixpixels audit --attacks pgd,square --set pgd.epsilon=4/255 --set square.budget=5000
      sixpixels audit verifier.onnx --pairs PAIRS --dry-run --save audit.toml
      sixpixels audit --remote remote.toml --source local.onnx --pairs PAIRS --dry-run
      sixpixels audit --config audit.toml
    """
    from toolkit.audit.options import resolve
    from toolkit.audit.run import audit_verifier
    from toolkit.report.write import choose_formats
    from toolkit.risk.policy import at_budget, find_policy

    options = resolve(given, config).options
    policy = find_policy(options.policy)
    options = at_budget(options, policy)
    choose_formats(options.format)  # fail on an unknown name before the long run, not after it
    if save is not None and not dry_run:
        raise UsageError("--save works only with --dry-run; add --dry-run")
    if dry_run:
        _show_plan(options, save, as_json=as_json, quiet=quiet)
        return
    with progress(quiet=quiet or as_json) as shown:
        run = audit_verifier(options, shown)
    _report(run, options, policy, as_json=as_json)


def _show_plan(options: AuditOptions, save: Path | None, *, as_json: bool, quiet: bool) -> None:
    from toolkit.audit.estimate import plan_audit
    from toolkit.audit.options import write_config
    from toolkit.audit.service_estimate import ServiceEstimate, plan_service_audit
    from toolkit.report.estimate import print_estimate, print_service_estimate

    with progress(quiet=quiet or as_json) as shown:
        planned = plan_audit(options, shown) if options.remote is None else plan_service_audit(options, shown)
    if save is not None:
        write_config(save, options)
    if as_json:
        print_document(planned)
    elif isinstance(planned, ServiceEstimate):
        print_service_estimate(planned, console(), save)
    else:
        print_estimate(planned, console(), None if options.run is None else Path(options.run), save)


def _report(run: Run, options: AuditOptions, policy: Policy, *, as_json: bool) -> None:
    """Write the requested report files, and print the report as JSON or as text."""
    from toolkit.report.assessment import print_assessment
    from toolkit.report.paper import print_paper_tables
    from toolkit.report.risk import print_overall, print_worst
    from toolkit.report.write import write_paper_figures, write_reports
    from toolkit.risk.findings import Judgement
    from toolkit.risk.rate import rate

    judgement = Judgement(rate(run, policy))
    files = write_reports(run, options.format, judgement=judgement, with_faces=options.with_faces or None)
    if as_json:
        print_document(run.assessment)
        return
    of_paper = options.suite == "paper"
    figures = write_paper_figures(run) if of_paper else []
    page, assessment = console(), run.assessment
    print_overall(judgement.risk, page)
    print_worst(judgement.risk, page)
    print_assessment(assessment, page, [run.folder / "report.json", *files, run.folder / "probes", *figures])
    if of_paper:
        print_paper_tables(assessment, page)


@takes_audit_options
def sweep(
    given: dict[str, Any],
    thresholds: Annotated[
        str | None,
        typer.Option(
            help="Thresholds, separated by commas. Default: 100, 90, 80, 70 and 60 % of the manifest's threshold."
        ),
    ] = None,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Audit a verifier at stricter thresholds: how many attacks each stops, and how much FNMR it costs.

    Each threshold gets an audit of its own, by attackers who know the threshold. To continue an interrupted sweep,
    give the same command again. `report`, `compare` and `gate` work on each of these runs.

    [bold]Examples[/bold]

      sixpixels sweep facenet-mini --thresholds 1.16,1.0,0.8 --profiles none,mean3
    """
    from toolkit.audit.options import resolve
    from toolkit.report.sweep import print_sweep
    from toolkit.risk.policy import at_budget, find_policy
    from toolkit.risk.sweep import sweep_thresholds

    options = resolve(given, config).options
    options = at_budget(options, find_policy(options.policy))
    chosen = None if thresholds is None else numbers("--thresholds", thresholds)
    with progress(quiet=quiet or as_json) as shown:
        result = sweep_thresholds(options, chosen, shown)
    if as_json:
        print_document(result)
    else:
        print_sweep(result, console())
