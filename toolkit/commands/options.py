"""Command-line options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.audit.options import Option, declared_options
from toolkit.completion import attack_names, complete_last, model_names, profile_names
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.faces.pairs import PairSet
    from toolkit.verifiers.runtime import Execution

COMPLETIONS: dict[str | None, Callable[[str], list[str]] | None] = {
    None: None,
    "models": lambda incomplete: [name for name in model_names() if name.startswith(incomplete)],
    "profiles": lambda incomplete: complete_last(incomplete, profile_names()),
    "attacks": lambda incomplete: complete_last(incomplete, attack_names()),
}
Model = Annotated[
    str,
    typer.Argument(
        help="A shipped model's name, an .onnx file with a manifest beside it, or a model.toml.",
        autocompletion=COMPLETIONS["models"],
    ),
]
Profile = Annotated[
    str,
    typer.Option(help="A shipped profile's name, or a .toml file.", autocompletion=COMPLETIONS["profiles"]),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        help="Labeled face pairs: an LFW folder with pairs.txt, a CSV of two paths and a label, "
        "or a folder with one subfolder per person. Default: the generated faces that ship with the toolkit."
    ),
]
Folds = Annotated[str | None, typer.Option(help="Use only these folds of the pair list, for example 7,8.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use at most this many pairs, half of them genuine.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Hide progress bars.")]
Confidence = Annotated[float, typer.Option(help="One-sided confidence that the true rate is not above the target.")]
PointEstimate = Annotated[
    bool,
    typer.Option(
        "--point-estimate", help="Hold the rate on these data only. Not conservative: the true rate may be higher."
    ),
]
Provider = Annotated[
    str, typer.Option(help="ONNX Runtime execution provider: auto, cpu, cuda, tensorrt, or a full name.")
]
RequireProvider = Annotated[str | None, typer.Option(help="Fail if the model does not run on this provider.")]
Threads = Annotated[int, typer.Option(min=0, help="ONNX Runtime threads; 0: OMP_NUM_THREADS, or ONNX Runtime chooses.")]
PolicyName = Annotated[str, typer.Option(help="A shipped policy's name (see `policy show`), or a .toml file.")]
Formats = Annotated[
    str,
    typer.Option("--format", help="Report formats, separated by commas: terminal, html, markdown, sarif, junit, json."),
]
Deployed = Annotated[
    str | None, typer.Option(help="The deployed profiles, separated by commas. Default: those that the policy names.")
]
_Work = Annotated[
    Path | None,
    typer.Option("--work", help="Keep the embeddings in this folder. The same command then continues where it was."),
]
Config = Annotated[
    Path | None,
    typer.Option(envvar="SIXPIXELS_CONFIG", help="Read options from this audit.toml; see `config`."),
]


def takes_spread(command: Callable[..., None]) -> Callable[..., None]:
    """Add --workers, the options of a Dask cluster, and --work to a command. It gets them as one `Spread`, `spread`."""
    options = [o for o in declared_options() if o.name == "workers" or o.name.startswith("dask_")]
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "spread"]
    work = inspect.Parameter("work", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=_Work)

    @functools.wraps(command)
    def run(*, work: Path | None, **values: Any) -> None:
        from toolkit.audit.evaluate import Spread
        from toolkit.audit.options import AuditOptions
        from toolkit.audit.workers import chosen_workers

        given = {o.name: values.pop(o.name) for o in options}
        asked = AuditOptions(**{name: value for name, value in given.items() if value is not None})
        command(spread=Spread(chosen_workers(asked), work), **values)

    run.__signature__ = inspect.Signature([*own, *map(_parameter, options), work])  # type: ignore[attr-defined]
    return run


def takes_audit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add a parameter for each audit option to a command. The command gets their values as one dictionary `given`."""
    options = declared_options()
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        command({o.name: values.pop(o.name) or None if o.many else values.pop(o.name) for o in options}, **values)

    run.__signature__ = inspect.Signature([*map(_parameter, options), *own])  # type: ignore[attr-defined]
    return run


def _parameter(option: Option) -> inspect.Parameter:
    """The typer parameter of an audit option.

    Its default is None, so that `resolve` can tell which options were given. The help text states the real default.
    """
    completion = COMPLETIONS[option.complete]
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


def names(text: str) -> list[str]:
    """Split a list that is written with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def numbers(name: str, text: str) -> list[float]:
    """Split a list of numbers that is written with commas.

    Args:
        name: the option, for the error message.
        text: the list.

    Raises:
        UsageError: an item is not a number.
    """
    try:
        return [float(number) for number in names(text)]
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}; give numbers separated by commas") from error


def chosen_pairs(path: Path | None, folds: str | None, limit: int | None, seed: int) -> PairSet:
    """Load the pairs that the options --pairs, --folds, --limit and --seed select.

    Raises:
        SixpixelsError: the pairs cannot be read, or --folds is not valid.
    """
    from toolkit.faces.pairs import embedded_pairs, load_pairs

    if folds is not None and not all(fold.isdecimal() for fold in names(folds)):
        raise UsageError(f"--folds {folds!r}: give fold numbers separated by commas, for example 7,8")
    chosen = None if folds is None else [int(fold) for fold in names(folds)]
    return load_pairs(path or embedded_pairs(), limit=limit, seed=seed, folds=chosen)


def execution(provider: str, required: str | None, threads: int) -> Execution:
    """The settings of ONNX Runtime from the options --provider, --require-provider and --threads."""
    from toolkit.verifiers.runtime import Execution

    return Execution(provider, required, threads)
