"""The command line: parses, calls the toolkit, prints. No logic of its own."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from toolkit import __version__
from toolkit.audit.config import Option, declared_options
from toolkit.completion import attack_names, complete_last, model_names, profile_names
from toolkit.errors import InputError, SixpixelsError, UsageError

if TYPE_CHECKING:
    from toolkit.audit.assessment import Assessment
    from toolkit.audit.config import AuditOptions, Resolved
    from toolkit.audit.run import Request
    from toolkit.faces.crops import CropSet
    from toolkit.faces.pairs import PairSet
    from toolkit.risk.findings import Picture, Report
    from toolkit.risk.policy import Policy
    from toolkit.verifiers.manifest import Manifest
    from toolkit.verifiers.runtime import Execution

_INTERRUPTED, _BROKEN = 130, 2
# With the default attacks and profiles: under five minutes on two cores.
_DEFAULT_PAIRS = 40
# Of a sweep where none are given, as shares of the manifest's threshold.
_STRICTER = (1.0, 0.9, 0.8, 0.7, 0.6)

app = typer.Typer(
    help="Audit and harden face verifiers that are deployed as ONNX files.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="The verifiers that come with the toolkit, and published ones.", no_args_is_help=True)
data_app = typer.Typer(help="Published face pairs.", no_args_is_help=True)
profiles_app = typer.Typer(help="Defense profiles.", no_args_is_help=True)
policy_app = typer.Typer(help="Policies: how risk is rated, and what the gate asks for.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(data_app, name="data")
app.add_typer(profiles_app, name="profiles")
app.add_typer(policy_app, name="policy")
config_app = typer.Typer(help="Options of an audit: where each value comes from.", no_args_is_help=True)
app.add_typer(config_app, name="config")
results_app = typer.Typer(help="What finished audits found, pair by pair.", no_args_is_help=True)
app.add_typer(results_app, name="results")

_COMPLETIONS: dict[str | None, Callable[[str], list[str]] | None] = {
    None: None,
    "models": lambda incomplete: [name for name in model_names() if name.startswith(incomplete)],
    "profiles": lambda incomplete: complete_last(incomplete, profile_names()),
    "attacks": lambda incomplete: complete_last(incomplete, attack_names()),
}
Model = Annotated[
    str,
    typer.Argument(
        help="A shipped model's name, an .onnx file with a manifest beside it, or a model.toml.",
        autocompletion=_COMPLETIONS["models"],
    ),
]
Profile = Annotated[
    str,
    typer.Option(help="A shipped profile's name, or a .toml file.", autocompletion=_COMPLETIONS["profiles"]),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        help="Labeled pairs: an LFW folder with pairs.txt, a CSV of two paths and a label, "
        "or a folder with one folder per person. Default: the generated faces that come with the toolkit."
    ),
]
Folds = Annotated[str | None, typer.Option(help="Only these folds of the pair list, for example 7,8.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most this many pairs, as many genuine as impostor ones.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Provider = Annotated[
    str, typer.Option(help="ONNX Runtime execution provider: auto, cpu, cuda, tensorrt, or a full name.")
]
RequireProvider = Annotated[str | None, typer.Option(help="Fail unless the session really runs on this provider.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of ONNX Runtime; 0 lets it choose.")]


PolicyName = Annotated[str, typer.Option(help="A shipped policy's name (see `policy show`), or a .toml file.")]
Formats = Annotated[
    str, typer.Option("--format", help="Reports: terminal, html, markdown, sarif, junit, json, separated by commas.")
]
Deployed = Annotated[
    str | None, typer.Option(help="The profiles that are deployed, separated by commas. Default: as the policy says.")
]
Config = Annotated[
    Path | None,
    typer.Option(envvar="SIXPIXELS_CONFIG", help="An audit.toml, which holds any of these options; see `config`."),
]


def _takes_audit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a parameter for each option of an audit; what was given of them arrives as one dictionary."""
    options = declared_options()
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        command({o.name: values.pop(o.name) or None if o.many else values.pop(o.name) for o in options}, **values)

    run.__signature__ = inspect.Signature([*map(_parameter, options), *own])  # type: ignore[attr-defined]
    return run


def _parameter(option: Option) -> inspect.Parameter:
    """How typer sees an option of an audit; None means that it was not given, and the default is only told."""
    completion = _COMPLETIONS[option.complete]
    told = f" [dim]\\[default: {option.default_text}][/dim]" if option.default_text else ""
    kind: Any = option.kind
    if option.many:
        kind = list[str] if option.name == "settings" else str
    if option.name == "model":
        info: Any = typer.Argument(help=option.help + told, metavar="MODEL", autocompletion=completion)
    else:
        metavar = "ATTACK.PARAMETER=VALUE" if option.name == "settings" else None
        name = "--" + option.key.replace("_", "-")
        info = typer.Option(name, help=option.help + told, metavar=metavar, autocompletion=completion)
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(option.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Audit and harden face verifiers that are deployed as ONNX files.

    [bold]Examples[/bold]

      sixpixels audit
      sixpixels audit facenet-mini --pairs LFW --limit 100
      sixpixels evaluate facenet-mini --pairs LFW
      sixpixels replay runs/1a2b3c4d --on other.onnx
      sixpixels export facenet-mini -o out.onnx
      sixpixels doctor
    """
    if version:
        print(f"sixpixels {__version__}")
        raise typer.Exit


@app.command()
@_takes_audit_options
def audit(
    given: dict[str, Any],
    config: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, measure what it would take, and write nothing.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="With --dry-run: write the options into this new .toml file.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Attack a verifier, bare and behind each profile, and report what is left of its security.

    An audit that was interrupted continues where it stopped when the same command is given again.

    Options come from the command line, the environment (SIXPIXELS_SEED), an audit.toml or a default, in that order.

    [bold]Examples[/bold]

      sixpixels audit
      sixpixels audit verifier.onnx --pairs PAIRS --limit 100 --profiles none,mean3
      sixpixels audit --attacks pgd,square --set pgd.epsilon=4/255 --set square.budget=5000
      sixpixels audit verifier.onnx --pairs PAIRS --dry-run --save audit.toml
      sixpixels audit --config audit.toml
    """
    from toolkit.audit.config import write_config
    from toolkit.audit.estimate import estimate, size_of
    from toolkit.audit.run import run_name
    from toolkit.report.estimate import print_estimate
    from toolkit.report.jsonable import to_json
    from toolkit.report.write import choose_formats
    from toolkit.risk.policy import find_policy

    options = _resolved(given, config).options
    asked = find_policy(options.policy)
    choose_formats(options.format)  # a format that does not exist is known before anything is attacked
    if save is not None and not dry_run:
        raise UsageError("--save writes the plan of a dry run; give --dry-run with it")
    with _progress(quiet or as_json) as progress:
        request, pair_set, which_pairs = _request(options, progress, sample=dry_run)
        if dry_run:
            planned = estimate(request, size_of(pair_set if options.group is None else request.crops))
        else:
            folder = options.run or Path("runs") / run_name(request)
            assessment = _run_audit(request, folder, progress, options.workers)
    if dry_run:
        if save is not None:
            write_config(save, options)
        if as_json:
            print(to_json(planned), end="")
        else:
            print_estimate(planned, _console(), options.run, save)
        return
    text = _finish(request, folder, assessment, options, pair_set.root)
    report, files = _audit_report(request, folder, options, asked)
    if as_json:
        print(text, end="")
    else:
        _print_audit(request, report, folder, files, which_pairs)


def _finish(request: Request, folder: Path, assessment: Assessment, options: AuditOptions, root: Path) -> str:
    """Write a finished audit's report.json and what it was asked, and return the former."""
    from toolkit.audit.collect import PARTIAL
    from toolkit.audit.record import write_record
    from toolkit.files import write_bytes
    from toolkit.report.jsonable import to_json

    text = to_json(assessment)
    write_bytes(folder / "report.json", text.encode())
    write_record(request, folder, root, options.model, list(dict.fromkeys(options.profiles)))
    (folder / PARTIAL).unlink(missing_ok=True)
    return text


def _audit_report(request: Request, folder: Path, options: AuditOptions, asked: Policy) -> tuple[Report, list[Path]]:
    """Rate a run that was just finished, and write it in the formats asked for; returns their files too."""
    from toolkit.audit.outcomes import read_run
    from toolkit.audit.record import is_of_nobody
    from toolkit.report.write import choose_formats, write_reports
    from toolkit.risk.findings import Report
    from toolkit.risk.rate import rate

    finished = read_run(folder)
    report = Report(finished, rate(finished, asked))
    if "html" in options.format and (options.with_faces or is_of_nobody(folder)):
        report = replace(report, pictures=_pictures(request, folder))
    return report, write_reports(report, choose_formats(options.format), folder)


def _pictures(request: Request, folder: Path) -> tuple[Picture, ...]:
    """Pictures of a run's probes; none of a group's, which have no references of their own."""
    from toolkit.audit.evidence import gather
    from toolkit.report.figures import pictures

    if request.crops.gallery is not None:
        return ()
    if not any((folder / "probes").glob("*.probes")):
        raise InputError(f"{folder / 'probes'}: there are no probes to show; give the audit's command again")
    return pictures(gather(request, folder))


def _print_audit(request: Request, report: Report, folder: Path, files: list[Path], of_paper: str) -> None:
    """The page of an audit; `of_paper` says which pairs the paper's suite had, and is empty for others."""
    from toolkit.report.paper import print_paper_tables
    from toolkit.report.risk import print_overall
    from toolkit.report.terminal import print_assessment

    console, files = _console(), [folder / "report.json", *files, folder / "probes"]
    if of_paper:
        from toolkit.audit.evidence import gather
        from toolkit.report.figures import write_figures

        files += write_figures(gather(request, folder), folder)
    print_overall(report.risk, console)
    print_assessment(report.run.assessment, console, files)
    if of_paper:
        print_paper_tables(report.run.assessment, of_paper, console)


def _resolved(given: dict[str, Any], config: Path | None) -> Resolved:
    from toolkit.audit.config import resolve

    return resolve(given, config)


def _request(options: AuditOptions, progress: _RichProgress, *, sample: bool) -> tuple[Request, PairSet, str]:
    """What is asked, its pairs, and in the paper's suite a sentence on which they are; with the crops of a sample."""
    from toolkit.audit.certify import Smoothing
    from toolkit.audit.estimate import sample_pairs
    from toolkit.audit.group import enroll
    from toolkit.audit.plan import ASKED
    from toolkit.audit.run import Request
    from toolkit.audit.suites import choose_attacks, paper_pairs
    from toolkit.audit.workers import check_workers
    from toolkit.faces.pairs import embedded_pairs, load_pairs
    from toolkit.profiles.profile import find_profile
    from toolkit.registry import choose
    from toolkit.verifiers.manifest import with_threshold
    from toolkit.verifiers.runtime import RuntimeVerifier

    o = options
    if o.group is not None and o.suite == "paper":
        raise UsageError("the paper's suite has no group; leave --group or --suite out")
    check_workers(o.workers)
    attacks = choose_attacks(o.suite, o.attacks, o.settings)
    profiles = [find_profile(name) for name in dict.fromkeys(o.profiles)]
    if not profiles:
        raise UsageError("no profile chosen; 'none' is the empty one")
    knowledge = choose("knowledge", o.knowledge, {level: level for level in ASKED})
    manifest, execution = _manifest(o.model), _execution(o.provider, o.require_provider, o.threads)
    if o.threshold is not None:
        manifest = with_threshold(manifest, o.threshold)
    RuntimeVerifier(manifest, execution=execution)  # a model that cannot be run is known before faces are looked for
    pairs, folds, which_pairs = o.pairs or embedded_pairs(), None if o.folds is None else list(o.folds), ""
    if o.suite == "paper":
        pair_set, which_pairs = paper_pairs(pairs, o.limit, folds, o.seed)
    else:
        pair_set = load_pairs(pairs, limit=o.limit or _DEFAULT_PAIRS, seed=o.seed, folds=folds)
    if sample:  # a group is enrolled out of everybody
        crops = _crop(sample_pairs(pair_set) if o.group is None else pair_set, manifest, progress)
    else:
        crops = _crop(pair_set, manifest, progress, _existing(o.run or Path()))
    request = Request(
        manifest=manifest,
        crops=crops if o.group is None else enroll(crops, o.group, o.seed),
        pairs_source=pair_set.source,
        attacks=attacks,
        profiles=tuple(profiles),
        knowledge=tuple(knowledge),
        seed=o.seed,
        execution=execution,
        suite=o.suite,
        smoothings=tuple(Smoothing(sigma, o.certify_samples, o.certify_confidence) for sigma in o.certify),
    )
    return request, pair_set, which_pairs


@config_app.command("show")
@_takes_audit_options
def config_show(given: dict[str, Any], config: Config = None, as_json: Json = False) -> None:
    """Print every option of an audit, its value, and where that comes from.

    [bold]Examples[/bold]

      sixpixels config show
      sixpixels config show --config audit.toml --seed 1
    """
    import json

    from toolkit.audit.config import as_text, declared_options

    found = _resolved(given, config)
    values = {o.name: getattr(found.options, o.name) for o in declared_options()}
    if as_json:
        plain = {o.key: {"value": _plain(values[o.name]), "from": found.sources[o.name]} for o in declared_options()}
        print(json.dumps(plain, indent=2))
        return
    for o in declared_options():
        text = as_text(values[o.name]) or f"({o.shown or 'none'})"
        print(f"{o.key:17} {text:32} {found.sources[o.name]}")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of audit.toml, for editors.

    [bold]Examples[/bold]

      sixpixels config schema
    """
    import json

    from toolkit.audit.config import config_schema as schema

    print(json.dumps(schema(), indent=2))


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _run_audit(request: Request, folder: Path, progress: _RichProgress, workers: str) -> Assessment:
    """Run an audit; one that is interrupted leaves a partial report."""
    from toolkit.audit.collect import PARTIAL, InterruptedAuditError
    from toolkit.audit.run import run_audit
    from toolkit.files import write_bytes
    from toolkit.report.jsonable import to_json

    try:
        return run_audit(request, folder, progress, workers)
    except InterruptedAuditError as stop:
        write_bytes(folder / PARTIAL, to_json(stop.partial).encode())
        raise


@app.command()
def doctor(as_json: Json = False) -> None:
    """Find out whether this installation works: versions, providers by running a model, shipped files, room.

    Exits with 2 where something is broken that an audit needs.

    [bold]Examples[/bold]

      sixpixels doctor
      sixpixels doctor --json
    """
    from toolkit.doctor import diagnose
    from toolkit.report.diagnosis import print_diagnosis
    from toolkit.report.jsonable import to_json

    diagnosis = diagnose()
    if as_json:
        print(to_json(diagnosis), end="")
    else:
        print_diagnosis(diagnosis, _console())
    if not diagnosis.works:
        raise typer.Exit(_BROKEN)


@results_app.command("export")
def results_export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .csv or .parquet file to write.")],
) -> None:
    """Write one row for each pair in each scenario of a finished audit, as CSV or Parquet.

    [bold]Examples[/bold]

      sixpixels results export runs/1a2b3c4d -o pairs.csv
    """
    from toolkit.audit.export import export_results
    from toolkit.audit.outcomes import read_run

    print(f"{output}: {export_results(read_run(run), output)} rows")


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    on: Annotated[str | None, typer.Option(help="The other verifier, named as for `audit`.")] = None,
    remote: Annotated[Path | None, typer.Option(help="Or a remote.toml: a verifier behind a network.")] = None,
    profile: Annotated[
        str, typer.Option(help="The profile that is deployed before --on.", autocompletion=_COMPLETIONS["profiles"])
    ] = "none",
    provider: Provider = "auto",
    require_provider: RequireProvider = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put the probes of a finished audit on another verifier, through its own crop, and count which transfer.

    A remote verifier is called by this command alone, and only with --remote.

    [bold]Examples[/bold]

      sixpixels replay runs/1a2b3c4d --on other.onnx --profile mean3
      sixpixels replay runs/1a2b3c4d --remote remote.toml
    """
    from toolkit.audit.judge import find_judge
    from toolkit.audit.record import read_record
    from toolkit.audit.transfer import check_transferred, result_file, run_transfer
    from toolkit.files import write_bytes
    from toolkit.report.jsonable import to_json
    from toolkit.report.transfer import print_transfer

    record, execution = read_record(run), _execution(provider, require_provider, threads)
    judge = find_judge(on, remote, profile, execution, record.seed)
    with _progress(quiet or as_json) as progress:
        transfer = run_transfer(record, judge, execution, progress)
    text, path = to_json(transfer), result_file(transfer, run)
    write_bytes(path, text.encode())
    if as_json:
        print(text, end="")
    else:
        print_transfer(transfer, _console(), path)
    check_transferred(transfer)


@app.command()
def gate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    policy: PolicyName = "access-control",
    baseline: Annotated[Path | None, typer.Option(help="Folder of an earlier run, which must not be better.")] = None,
    waivers: Annotated[Path | None, typer.Option(help="A .toml file of findings that somebody answers for.")] = None,
    deployed: Deployed = None,
    formats: Formats = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the reports. Default: that of the run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge a finished audit, and exit with 0 only if it passes.

    Exits with 1 where it fails, 2 where the run is damaged, 3 where nothing or too little was tested.

    [bold]Examples[/bold]

      sixpixels gate runs/1a2b3c4d
      sixpixels gate runs/1a2b3c4d --policy policy.toml --baseline runs/last --waivers waivers.toml
      sixpixels gate runs/1a2b3c4d --format terminal,html,sarif,junit
    """
    import datetime as dt

    from toolkit.audit.outcomes import read_run
    from toolkit.report.jsonable import to_json
    from toolkit.report.risk import print_findings, print_overall, print_verdict
    from toolkit.report.terminal import bullet
    from toolkit.report.write import TERMINAL, choose_formats, write_reports
    from toolkit.risk.findings import EXIT_STATUS, Judgement, Report
    from toolkit.risk.gate import judge
    from toolkit.risk.policy import find_policy
    from toolkit.risk.rate import rate
    from toolkit.risk.waivers import read_waivers

    asked, chosen = find_policy(policy), choose_formats(_names(formats))
    finished, earlier = read_run(run), None if baseline is None else read_run(baseline)
    risk = rate(finished, asked, _names(deployed or ""))
    accepted = () if waivers is None else read_waivers(waivers)
    verdict = judge(finished, risk, asked, dt.datetime.now(tz=dt.UTC).date(), accepted, earlier)
    files = write_reports(Report(finished, risk, verdict), chosen, output or run)
    if as_json:
        print(to_json(Judgement(risk, verdict)), end="")
    elif TERMINAL in _names(formats):
        console = _console()
        print_overall(risk, console)
        print_findings(risk, console)
        print_verdict(verdict, console)
        for path in files:
            bullet(console, str(path))
    raise typer.Exit(EXIT_STATUS[verdict.status])


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    formats: Formats = "terminal,html",
    policy: PolicyName = "access-control",
    deployed: Deployed = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the reports. Default: that of the run.")
    ] = None,
    with_faces: Annotated[
        bool, typer.Option("--with-faces", help="Put the attacked faces into the HTML report; faces are personal data.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Report a finished audit again, in any format and under any policy.

    Pictures of probes need the photographs, the verifier and the run's probes to be where they were.

    [bold]Examples[/bold]

      sixpixels report runs/1a2b3c4d --format html,markdown,sarif
      sixpixels report runs/1a2b3c4d --policy watchlist -o reports
    """
    from toolkit.audit.outcomes import read_run
    from toolkit.audit.record import is_of_nobody, read_record
    from toolkit.report.risk import print_findings, print_overall
    from toolkit.report.terminal import print_assessment
    from toolkit.report.write import TERMINAL, choose_formats, write_reports
    from toolkit.risk.findings import Report
    from toolkit.risk.policy import find_policy
    from toolkit.risk.rate import rate

    asked, chosen, finished = find_policy(policy), choose_formats(_names(formats)), read_run(run)
    risk = rate(finished, asked, _names(deployed or ""))
    shown = Report(finished, risk)
    if "html" in _names(formats) and (with_faces or is_of_nobody(run)):
        with _progress(quiet) as progress:
            record = read_record(run)
            request = record.request(_crop(record.pairs, record.manifest, progress), _execution("auto", None, 0))
            shown = replace(shown, pictures=_pictures(request, run))
    files = write_reports(shown, chosen, output or run)
    if TERMINAL in _names(formats):
        console = _console()
        print_overall(risk, console)
        print_findings(risk, console)
        print_assessment(finished.assessment, console, files)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished audits; all are held against the first.")],
    policy: PolicyName = "access-control",
    as_json: Json = False,
) -> None:
    """Put runs side by side: models, profiles, quantizations or releases, paired where their pairs are the same.

    [bold]Examples[/bold]

      sixpixels compare runs/1a2b3c4d runs/5e6f7a8b
    """
    from toolkit.audit.outcomes import read_run
    from toolkit.report.jsonable import to_json
    from toolkit.report.risk import print_comparison
    from toolkit.risk.compare import compare as side_by_side
    from toolkit.risk.policy import find_policy

    comparison = side_by_side([read_run(folder) for folder in runs], find_policy(policy))
    if as_json:
        print(to_json(comparison), end="")
    else:
        print_comparison(comparison, _console())


@app.command()
@_takes_audit_options
def sweep(
    given: dict[str, Any],
    thresholds: Annotated[
        str | None,
        typer.Option(help="Thresholds, separated by commas. Default: the manifest's, and 90, 80, 70 and 60 % of it."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Audit a verifier at stricter thresholds: what each costs in false non-matches, and what it stops.

    Every threshold is attacked anew, by attackers who know it. A sweep that was interrupted continues when the same
    command is given again; each threshold's run is reported, compared and gated like any other.

    [bold]Examples[/bold]

      sixpixels sweep facenet-mini --thresholds 1.16,1.0,0.8 --profiles none,mean3
    """
    from toolkit.audit.outcomes import read_run
    from toolkit.audit.run import run_name
    from toolkit.report.jsonable import to_json
    from toolkit.report.sweep import print_sweep
    from toolkit.risk.policy import find_policy
    from toolkit.risk.sweep import sweep as put_together
    from toolkit.verifiers.manifest import with_threshold

    options = _resolved(given, config).options
    if options.threshold is not None:
        raise UsageError("a sweep has many thresholds; give --thresholds")
    policy, manifest = find_policy(options.policy), _manifest(options.model)
    own = manifest.decision.threshold
    chosen = [own * share for share in _STRICTER] if thresholds is None else _numbers("--thresholds", thresholds)
    strict = [with_threshold(manifest, threshold) for threshold in dict.fromkeys(chosen)]
    folders = []
    parent = Path("runs") if options.run is None else options.run
    with _progress(quiet or as_json) as progress:
        asked, pair_set, _ = _request(options, progress, sample=False)
        for one in strict:
            request = replace(asked, manifest=one)
            folder = parent / (run_name(request) if options.run is None else f"{one.decision.threshold:g}")
            assessment = _run_audit(request, folder, progress, options.workers)
            _finish(request, folder, assessment, options, pair_set.root)
            folders.append(folder)
    result = put_together([read_run(folder) for folder in folders], policy)
    if as_json:
        print(to_json(result), end="")
    else:
        print_sweep(result, _console())


@app.command()
def power(
    claim: Annotated[
        float | None, typer.Option(help="The largest rate that is to be shown, for example 0.05 for an ASR of 5 %.")
    ] = None,
    expected: Annotated[float, typer.Option(help="With --claim: the true rate that is expected.")] = 0.0,
    confidence: Annotated[float, typer.Option(help="With --claim: of the one-sided bound.")] = 0.95,
    only_first: Annotated[
        float | None, typer.Option(help="Share of pairs that only the first of two profiles lets through.")
    ] = None,
    only_second: Annotated[float, typer.Option(help="The same of the second.")] = 0.0,
    level: Annotated[float, typer.Option(help="With --only-first: of the test of the two.")] = 0.05,
    comparisons: Annotated[int, typer.Option(help="With --only-first: tests on the same pairs.")] = 1,
    wanted: Annotated[float, typer.Option("--power", help="How probably the pairs are to show it.")] = 0.8,
    as_json: Json = False,
) -> None:
    """Say how many pairs a claim needs, before they are collected.

    [bold]Examples[/bold]

      sixpixels power --claim 0.05 --expected 0.01
      sixpixels power --only-first 0.2 --only-second 0.05 --comparisons 9
    """
    from toolkit.report.jsonable import to_json
    from toolkit.report.power import print_power
    from toolkit.statistics.power import BoundPlan, ComparisonPlan, pairs_to_bound, pairs_to_compare

    if (claim is None) == (only_first is None):
        raise UsageError("give --claim, or --only-first with --only-second")
    plan: BoundPlan | ComparisonPlan
    if claim is not None:
        plan = pairs_to_bound(claim, expected, confidence, wanted)
    else:
        assert only_first is not None  # noqa: S101 - for mypy: one of the two was given
        plan = pairs_to_compare(only_first, only_second, level, wanted, comparisons)
    if as_json:
        print(to_json(plan), end="")
    else:
        print_power(plan, _console())


@policy_app.command("show")
def policy_show(
    name: Annotated[str | None, typer.Argument(help="A policy's name. Default: list them.")] = None,
) -> None:
    """List the shipped policies, or print the text of one to start your own from.

    [bold]Examples[/bold]

      sixpixels policy show
      sixpixels policy show access-control
    """
    from toolkit.registry import choose
    from toolkit.risk.policy import shipped_policies

    known = shipped_policies()
    for path in known.values() if name is None else choose("policy", [name], known):
        text = path.read_text(encoding="utf-8")
        print(f"{path.stem:16} {text.splitlines()[0][2:]}" if name is None else text)


@policy_app.command("schema")
def policy_schema_() -> None:
    """Print the JSON Schema of policies.

    [bold]Examples[/bold]

      sixpixels policy schema
    """
    import json

    from toolkit.risk.policy import policy_schema

    print(json.dumps(policy_schema(), indent=2))


@app.command()
def evaluate(
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
    """Measure clean verification: accuracy, EER, FNMR at fixed FMR, with intervals. Nothing is attacked.

    [bold]Examples[/bold]

      sixpixels evaluate
      sixpixels evaluate verifier.onnx --pairs LFW --folds 7,8
    """
    from toolkit.audit.evaluate import evaluate as measure
    from toolkit.report.jsonable import to_json
    from toolkit.report.terminal import print_evaluation
    from toolkit.verifiers.runtime import RuntimeVerifier

    manifest = _manifest(model)
    verifier = RuntimeVerifier(manifest, execution=_execution(provider, require_provider, threads))
    with _progress(quiet or as_json) as progress:
        pair_set = _load_pairs(pairs, folds, limit, seed)
        crops = _crop(pair_set, manifest, progress)
    evaluation = measure(verifier, crops, pair_set.source, seed)
    if as_json:
        print(to_json(evaluation), end="")
    else:
        print_evaluation(evaluation, _console())


@app.command()
def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    pairs: Annotated[
        Path | None, typer.Option(help="Real pairs to check parity on. Without: no decision is checked.")
    ] = None,
    folds: Folds = None,
    limit: Limit = 100,
    seed: Seed = 0,
    max_flips: Annotated[int, typer.Option(min=0, help="Flipped decisions that are accepted.")] = 0,
    opset: Annotated[int, typer.Option(min=13, max=18, help="ONNX operator set.")] = 17,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a model's original checkpoint to ONNX and compare the two on real crops, for every provider here.

    [bold]Examples[/bold]

      sixpixels export facenet-mini -o out.onnx
      sixpixels export models/20180402-114759/model.toml -o facenet.onnx --pairs LFW
    """
    from toolkit.export.parity import check_flips
    from toolkit.export.run import run_export
    from toolkit.report.jsonable import to_json
    from toolkit.report.terminal import print_export

    manifest = _manifest(model)
    with _progress(quiet or as_json) as progress:
        crops = _crop(_load_pairs(pairs, folds, limit, seed), manifest, progress) if pairs else None
        result = run_export(manifest, output, crops, opset)
    if as_json:
        print(to_json(result), end="")
    else:
        print_export(result, _console())
    check_flips(result.parities, max_flips)


@app.command("attacks")
def attacks_list() -> None:
    """List the attacks, what they need, and the suites that run them.

    [bold]Examples[/bold]

      sixpixels attacks
    """
    import inspect

    import toolkit.attacks
    from toolkit.audit.suites import SUITES
    from toolkit.registry import discover

    suites = {name: {attack.name for attack in make()} for name, make in SUITES.items()}
    for name, attack in discover(toolkit.attacks, "ATTACK").items():
        summary = (inspect.getdoc(type(attack)) or "").splitlines()[0]
        of = ", ".join(suite for suite, names in suites.items() if name in names)
        print(f"{name:14} {attack.needs:9} {summary}" + (f" [{of}]" if of else ""))


@app.command()
def harden(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    profile: Profile = "mean3",
) -> None:
    """Put a profile before a verifier, as one ONNX file that drops in place of the original.

    [bold]Examples[/bold]

      sixpixels harden verifier.onnx --profile balanced -o hardened.onnx
    """
    from toolkit.profiles.harden import write_hardened
    from toolkit.profiles.profile import find_profile
    from toolkit.verifiers.manifest import read_manifest
    from toolkit.verifiers.runtime import RuntimeVerifier

    written = write_hardened(_manifest(model), find_profile(profile), output)
    RuntimeVerifier(read_manifest(written.path))  # what cannot be run is not called done
    print(f"{written.path}   sha256 {written.sha256}\n{written.manifest}")


@app.command()
def quantize(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    to: Annotated[str, typer.Option(help="int8 (static, per channel, calibrated) or fp16.")] = "int8",
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = None,
    seed: Seed = 0,
    calibration: Annotated[
        int, typer.Option(min=1, help="Crops that int8 is calibrated on, of people set apart.")
    ] = 32,
    max_flips: Annotated[int, typer.Option(min=0, help="Flipped decisions that are accepted.")] = 0,
    provider: Provider = "auto",
    require_provider: RequireProvider = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an int8 or fp16 variant of a verifier, hardened or not, and compare the two on real pairs.

    The input, the output and the threshold stay what they are, and so do the defenses of a hardened verifier.

    [bold]Examples[/bold]

      sixpixels quantize facenet-mini --to int8 -o int8.onnx --pairs LFW --limit 600 --max-flips 30
    """
    from toolkit.export.compare import run_quantization
    from toolkit.export.parity import check_flips
    from toolkit.export.quantize import PRECISIONS
    from toolkit.registry import choose
    from toolkit.report.jsonable import to_json
    from toolkit.report.terminal import print_quantization

    precision = choose("precision", [to], {name: name for name in PRECISIONS})[0]
    manifest, execution = _manifest(model), _execution(provider, require_provider, threads)
    with _progress(quiet or as_json) as progress:
        pair_set = _load_pairs(pairs, folds, limit, seed)
        crops = _crop(pair_set, manifest, progress)
        report = run_quantization(manifest, precision, output, crops, pair_set.source, calibration, execution, seed)
    if as_json:
        print(to_json(report), end="")
    else:
        print_quantization(report, _console())
    check_flips([report.parity], max_flips)


@models_app.command("list")
def models_list() -> None:
    """List the shipped models.

    [bold]Examples[/bold]

      sixpixels models list
    """
    from toolkit.files import bundled
    from toolkit.verifiers.manifest import read_manifest

    for path in sorted(bundled("models").glob("*/model.toml")):
        manifest = read_manifest(path)
        print(f"{manifest.name:20} {manifest.decision.metric} < {manifest.decision.threshold:g}   {manifest.license}")


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="facenet, or the name of one of its published versions.")] = "facenet",
    folder: Annotated[Path, typer.Option(help="Where to put it.")] = Path("models"),
    quiet: Quiet = False,
) -> None:
    """Download published weights, check their hash, and write their manifest.

    [bold]Examples[/bold]

      sixpixels models fetch facenet
    """
    from toolkit.fetch import fetch_model

    with _progress(quiet) as progress:
        where = fetch_model(name, folder, progress=_bytes(progress, name))
    print(where)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="lfw, or lfw-funneled.")] = "lfw",
    folder: Annotated[Path, typer.Option(help="Where to put it.")] = Path("data"),
    quiet: Quiet = False,
) -> None:
    """Download published pairs of faces, check their hash, and unpack them.

    [bold]Examples[/bold]

      sixpixels data fetch lfw --folder data
    """
    from toolkit.fetch import fetch_data

    with _progress(quiet) as progress:
        where = fetch_data(name, folder, progress=_bytes(progress, name))
    print(where)


@profiles_app.command("list")
def profiles_list() -> None:
    """List the shipped profiles.

    [bold]Examples[/bold]

      sixpixels profiles list
    """
    from toolkit.profiles.profile import read_profile, shipped_profiles

    for path in shipped_profiles().values():
        profile = read_profile(path)
        print(f"{profile.name:12} {profile.description}")


@profiles_app.command("show")
def profiles_show(name: Annotated[str, typer.Argument(help="A shipped profile's name, or a .toml file.")]) -> None:
    """Check a profile and print its text.

    [bold]Examples[/bold]

      sixpixels profiles show balanced
    """
    from toolkit.profiles.profile import find_profile, shipped_profiles

    find_profile(name)
    print(shipped_profiles().get(name, Path(name)).read_text(encoding="utf-8"), end="")


@profiles_app.command("check")
def profiles_check(files: Annotated[list[Path], typer.Argument(help="Profile files.")]) -> None:
    """Check profiles, and the files that they name.

    [bold]Examples[/bold]

      sixpixels profiles check mine.toml other.toml
    """
    from toolkit.profiles.profile import read_profile

    for path in files:
        profile = read_profile(path)
        print(f"{path}: {profile.name}, {len(profile.defenses)} defenses, sha256 {profile.sha256}")


@profiles_app.command("new")
def profiles_new(
    output: Annotated[Path, typer.Argument(help="The .toml file to write; it must not exist.")],
    defenses: Annotated[str, typer.Option(help="Defenses in their order, separated by commas.")] = "mean",
) -> None:
    """Write a profile with every parameter of its defenses at its default, to be edited.

    [bold]Examples[/bold]

      sixpixels profiles new mine.toml --defenses bit-depth,mean
    """
    from toolkit.profiles.profile import write_new_profile

    write_new_profile(output, _names(defenses))
    print(output)


@profiles_app.command("schema")
def profiles_schema() -> None:
    """Print the JSON Schema of profiles, for editors.

    [bold]Examples[/bold]

      sixpixels profiles schema
    """
    import json

    from toolkit.profiles.schema import profile_schema

    print(json.dumps(profile_schema(), indent=2))


@profiles_app.command("bench")
def profiles_bench(
    model: Model = "facenet-mini",
    profiles: Annotated[str | None, typer.Option(help="Names or .toml files, by commas. Default: all shipped.")] = None,
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = None,
    seed: Seed = 0,
    repeats: Annotated[int, typer.Option(min=2, help="Calls per profile and batch size.")] = 20,
    provider: Provider = "auto",
    require_provider: RequireProvider = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What profiles cost: clean errors, also at a recalibrated threshold, latency and memory, in one run.

    [bold]Examples[/bold]

      sixpixels profiles bench verifier.onnx --pairs PAIRS --profiles light,balanced
    """
    from toolkit.audit.cost import measure_costs
    from toolkit.profiles.profile import find_profile, shipped_profiles
    from toolkit.report.jsonable import to_json
    from toolkit.report.terminal import print_costs

    names = _names(profiles) if profiles is not None else list(shipped_profiles())
    chosen = [find_profile(name) for name in dict.fromkeys(["none", *names])]
    manifest = _manifest(model)
    with _progress(quiet or as_json) as progress:
        pair_set = _load_pairs(pairs, folds, limit, seed)
        crops = _crop(pair_set, manifest, progress)
        execution = _execution(provider, require_provider, threads)
        done = progress.stage("profiles", len(chosen))
        costs = measure_costs(manifest, crops, pair_set.source, chosen, execution, repeats, done)
    if as_json:
        print(to_json(costs), end="")
    else:
        print_costs(costs, _console())


@profiles_app.command("select")
def profiles_select(
    run: Annotated[Path, typer.Argument(help="Folder of a finished audit.")],
    goal: Annotated[str, typer.Option(help="The goal that matters: dodging, impersonation, or any.")] = "any",
    max_fnmr: Annotated[float | None, typer.Option(min=0, max=1, help="Largest clean FNMR, for example 0.1.")] = None,
    max_fmr: Annotated[float | None, typer.Option(min=0, max=1, help="Largest clean FMR.")] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(min=0, help="Largest latency over the bare verifier's, for example 2.")
    ] = None,
    costs: Annotated[
        Path | None, typer.Option(help="Latencies from `profiles bench --json`. Default: measured now.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The verifier, to measure. Default: a shipped one, by name.")
    ] = None,
    profiles: Annotated[str, typer.Option(help=".toml files of the run's profiles that are not shipped.")] = "",
    plot: Annotated[Path | None, typer.Option(help="Draw the Pareto front into this .png file.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Calls per profile.")] = 20,
    provider: Provider = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Name one profile out of a finished audit, within limits, with its Pareto front and paired tests.

    Exits with 3 where no profile meets the limits.

    [bold]Examples[/bold]

      sixpixels profiles select audited --goal impersonation --max-fnmr 0.1 --max-latency-ratio 2
    """
    from toolkit.audit.latency import audited_profiles, measure_latency_ratios, read_latency_ratios
    from toolkit.audit.outcomes import read_run
    from toolkit.audit.select import WANTED, Limits, candidates_of, check_chosen, select
    from toolkit.registry import choose
    from toolkit.report.jsonable import to_json
    from toolkit.report.selection import print_selection, write_pareto

    wanted = choose("goal", [goal], {name: name for name in WANTED})[0]
    finished = read_run(run)
    if costs is not None:
        ratios = read_latency_ratios(finished, costs)
    else:
        manifest, execution = _manifest(model or finished.assessment.target.name), _execution(provider, None, threads)
        audited = audited_profiles(finished, _names(profiles))
        ratios = measure_latency_ratios(finished, manifest, audited, execution, repeats)
    limits = Limits(wanted, max_fnmr, max_fmr, max_latency_ratio)
    selection = select(candidates_of(finished, ratios), finished.genuine, limits)
    if plot is not None:
        write_pareto(selection, plot)
    if as_json:
        print(to_json(selection), end="")
    else:
        print_selection(selection, _console())
    check_chosen(selection)


@profiles_app.command("calibrate-detector")
def profiles_calibrate_detector(
    profile: Annotated[Path, typer.Argument(help="A profile's .toml file with a [detector]; its threshold is set.")],
    model: Model = "facenet-mini",
    false_alarm: Annotated[float, typer.Option(help="The share of clean images that may be flagged.")] = 0.05,
    pairs: Pairs = None,
    folds: Folds = None,
    limit: Limit = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find a detector's threshold for a false alarm rate and write it into the profile; all else in it is kept.

    Refuses where the clean crops are too few to show the rate. The threshold holds for this verifier only.

    [bold]Examples[/bold]

      sixpixels profiles calibrate-detector mine.toml verifier.onnx --false-alarm 0.05 --pairs PAIRS
    """
    from toolkit.audit.detection import calibrate_detector
    from toolkit.audit.replay import run_clean
    from toolkit.profiles.detector import write_threshold
    from toolkit.profiles.harden import deploy
    from toolkit.profiles.profile import read_profile
    from toolkit.report.jsonable import to_json
    from toolkit.report.terminal import print_detector_calibration
    from toolkit.verifiers.runtime import read_model

    chosen, manifest = read_profile(profile), _manifest(model)
    if chosen.detector is None:
        raise UsageError(f"{profile}: has no [detector] whose threshold could be set")
    verifier = deploy(read_model(manifest), manifest, chosen, seed=seed)
    with _progress(quiet or as_json) as progress:
        pair_set = _load_pairs(pairs, folds, limit, seed)
        crops = _crop(pair_set, manifest, progress)
    result = calibrate_detector(run_clean(verifier, crops, manifest.decision).scores, false_alarm)
    write_threshold(profile, result.threshold, false_alarm, f"for {manifest.name} on {result.false_alarm.trials} crops")
    if as_json:
        print(to_json(result), end="")
    else:
        what = f"{chosen.name} before {manifest.name}"
        print_detector_calibration(result, what, pair_set.source, _console())


@app.command()
def calibrate(
    model: Model = "facenet-mini",
    fmr: Annotated[float, typer.Option(help="The false match rate to hold, for example 1e-3.")] = 1e-2,
    profile: Annotated[
        str,
        typer.Option(help="The profile that is deployed before the verifier.", autocompletion=_COMPLETIONS["profiles"]),
    ] = "none",
    pairs: Pairs = None,
    folds: Folds = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the threshold that holds a false match rate, with its interval; refuses where the pairs cannot show it.

    [bold]Examples[/bold]

      sixpixels calibrate hardened.onnx --fmr 1e-2 --pairs PAIRS
    """
    import numpy as np

    from toolkit.audit.replay import run_clean
    from toolkit.profiles.harden import deploy
    from toolkit.profiles.profile import find_profile
    from toolkit.report.jsonable import to_json
    from toolkit.report.terminal import print_calibration
    from toolkit.statistics.calibration import calibrate as choose_threshold
    from toolkit.verifiers.runtime import read_model

    manifest, chosen = _manifest(model), find_profile(profile)
    verifier = deploy(read_model(manifest), manifest, chosen)
    with _progress(quiet or as_json) as progress:
        pair_set = _load_pairs(pairs, folds, None, seed)
        crops = _crop(pair_set, manifest, progress)
    distances = run_clean(verifier, crops, manifest.decision).distances
    result = choose_threshold(distances, np.array([pair.genuine for pair in crops.pairs]), fmr)
    if as_json:
        print(to_json(result), end="")
    else:
        print_calibration(result, f"{manifest.name} behind {chosen.name}", pair_set.source, _console())


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(number) for number in _names(text)]
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}; give numbers separated by commas") from error


def _manifest(model: str) -> Manifest:
    from toolkit.verifiers.manifest import find_manifest

    return find_manifest(model)


def _execution(provider: str, required: str | None, threads: int) -> Execution:
    from toolkit.verifiers.runtime import Execution

    return Execution(provider, required, threads)


def _folds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(fold.isdecimal() for fold in _names(text)):
        raise UsageError(f"--folds {text!r}: give fold numbers separated by commas, for example 7,8")
    return [int(fold) for fold in _names(text)]


def _load_pairs(path: Path | None, folds: str | None, limit: int | None, seed: int) -> PairSet:
    from toolkit.faces.pairs import embedded_pairs, load_pairs

    return load_pairs(path or embedded_pairs(), limit=limit, seed=seed, folds=_folds(folds))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())


def _crop(pairs: PairSet, manifest: Manifest, progress: _RichProgress, spill: Path | None = None) -> CropSet:
    from toolkit.faces.crops import crop_pairs

    spec = manifest.input
    template = manifest.alignment.template if manifest.alignment else None
    return crop_pairs(pairs, spec.width, spec.height, template, progress=progress.counter("aligning"), spill=spill)


def _console() -> Console:
    from toolkit.report.terminal import plain_console

    return plain_console()


class _RichProgress:
    """Progress bars on standard error; silent where there is no terminal."""

    def __init__(self, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description:24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
            transient=True,
        )

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """A bar of `total` steps; call the result with each number of steps done."""
        task = self.bars.add_task(name, total=total)
        return lambda done: self.bars.advance(task, done)

    def counter(self, name: str) -> Callable[[int, int | None], None]:
        """A bar that is told (done, total)."""
        task = self.bars.add_task(name, total=None)
        return lambda done, total: self.bars.update(task, completed=done, total=total)


@contextmanager
def _progress(quiet: bool) -> Iterator[_RichProgress]:
    progress = _RichProgress(quiet)
    with progress.bars:
        yield progress


def _bytes(progress: _RichProgress, name: str) -> Callable[[int, int | None], None]:
    return progress.counter(f"{name} (bytes)")


def main() -> None:
    """Run the command line; every error that a user can act on becomes one line and an exit status."""
    try:
        status = app(standalone_mode=False)
    except SixpixelsError as error:
        _fail(str(error), error.exit_status)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted; what was finished is kept", _INTERRUPTED)
    except MemoryError:
        _fail("out of memory; use --limit, or smaller batches", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror}", 2)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(f"{error.format_message()} (try --help)", 4)
        raise
    if status == _INTERRUPTED:  # typer turns Ctrl-C into this status, and says nothing
        _fail("interrupted; what was finished is kept", _INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> None:
    print(f"sixpixels: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
