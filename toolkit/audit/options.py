"""Options of an audit. Each is declared once; the command line, the environment and `audit.toml` all read it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from toolkit.errors import UsageError
from toolkit.files import write_bytes
from toolkit.quiet import DEBUG
from toolkit.tables import read_table

SCHEMA_VERSION = 1
_PREFIX = "SIXPIXELS_"
# Variables with this prefix that are not audit options.
_OTHER_VARIABLES = {"SIXPIXELS_CACHE", "SIXPIXELS_CONFIG", DEBUG}


def option(
    default: Any,
    help: str,  # noqa: A002
    *,
    key: str | None = None,
    lowest: int | None = None,
    complete: str | None = None,
    shown: str | None = None,
    files: bool = False,
    environment: bool = True,
) -> Any:
    """Declare a field of `AuditOptions`.

    Args:
        default: the value if the user gives none; None if the audit decides it later.
        help: one or two sentences, for ``--help``, ``config show`` and the schema.
        key: the name that users see. Default: the field's name.
        lowest: the smallest allowed number.
        complete: which names a shell offers as completions: models, profiles or attacks.
        shown: the default in words.
        files: whether a text with a slash, or one that ends in .toml or .onnx, is a path.
        environment: whether the environment may set it. What calls a network must be named where the user looks.
    """
    declared = {
        "help": help, "key": key, "lowest": lowest, "complete": complete, "shown": shown, "files": files,
        "environment": environment,
    }  # fmt: skip
    return field(default=default, metadata=declared)


@dataclass(frozen=True)
class AuditOptions:
    """The options of an audit. To add an option, add one field here and use it."""

    model: str = option(
        "facenet-mini",
        "A shipped model's name, an .onnx file with a manifest beside it, or a model.toml.",
        complete="models",
        files=True,
    )
    pairs: Path | str | None = option(
        None,
        "Labeled face pairs: an LFW folder with pairs.txt, a CSV of two paths and a label, or a folder with one "
        "subfolder per person.",
        shown="the generated faces that ship with the toolkit",
    )
    folds: tuple[int, ...] | None = option(None, "Use only these folds of the pair list, for example 7,8.", shown="all")
    limit: int | None = option(
        None, "Use at most this many pairs, half of them genuine.", lowest=1, shown="10 generated or 40 real; paper: 50"
    )
    group: int | None = option(None, "Enroll this many people. Everybody else tries to match any of them.")
    threshold: float | None = option(
        None, "Two faces match if their distance is below this threshold.", shown="the threshold of the manifest"
    )
    seed: int = option(0, "Seed of every random choice.", lowest=0)
    suite: str = option(
        "standard",
        "Set of attacks: standard; quick (without queries), strong (what the shipped policies ask for), "
        "thorough (for a release); natural (no attack, but what cameras do); or paper, with its tables and figures.",
    )
    attacks: tuple[str, ...] | None = option(
        None, "Attacks, separated by commas; see `attacks`.", complete="attacks", shown="the suite's attacks"
    )
    profiles: tuple[str, ...] = option(
        ("none", "mean3"),
        "Profiles: shipped names or .toml files, separated by commas.",
        complete="profiles",
        files=True,
    )
    settings: tuple[str, ...] = option(
        (), "Set a parameter of an attack, for example pgd.epsilon=8/255. May be repeated.", key="set"
    )
    budget: float | None = option(
        None, "Budget of the suite's attacks that have one: an RMS in 1/255.", shown="that of the policy, or 2.15"
    )
    knowledge: tuple[str, ...] = option(
        ("zero", "perfect"), "What the attacker knows of the profile: zero, partial, perfect."
    )
    certify: tuple[float, ...] = option(
        (),
        "Also certify the pairs by randomized smoothing with Gaussian noise of these standard deviations, for example "
        "0.1,0.25. Pixels range from 0 to 1.",
    )
    certify_samples: int = option(1000, "Number of noisy copies of each probe for a certificate.", lowest=1)
    certify_confidence: float = option(0.999, "One-sided confidence of each certificate.")
    remote: Path | None = option(
        None,
        "Audit the service that this remote.toml describes, instead of a file. Calls its server, within its limits.",
        shown="none; nothing is called over a network",
        environment=False,
    )
    sources: tuple[str, ...] = option(
        (),
        "With --remote: local verifiers, separated by commas, to craft the probes of attacks by gradients on.",
        key="source",
        complete="models",
        files=True,
    )
    run: Path | str | None = option(None, "Folder of the run.", shown="runs/ and a hash of the request")
    provider: str = option("auto", "ONNX Runtime execution provider: auto, cpu, cuda, tensorrt, or a full name.")
    require_provider: str | None = option(None, "Fail if the model does not run on this provider.")
    threads: int = option(0, "Attacks at once, and ONNX Runtime threads; 0: OMP_NUM_THREADS, or the cores.", lowest=0)
    format: tuple[str, ...] = option(
        ("terminal",), "Report formats, separated by commas: terminal, html, markdown, sarif, junit, json."
    )
    with_faces: bool = option(False, "Show the attacked faces in the HTML report. Faces are personal data.")
    policy: str = option(
        "access-control", "Policy that rates the risk: a shipped policy's name, or a .toml file.", files=True
    )
    workers: str = option(
        "1",
        "Number of processes that do the work, or a Dask cluster: tls://host:port or dask://host:port. A hostile "
        "scheduler runs code on this computer.",
    )
    dask_ca: Path | None = option(None, "PEM file of the authority that signed the cluster's certificates, for tls://.")
    dask_certificate: Path | None = option(None, "PEM file of this computer's certificate in the cluster, for tls://.")
    dask_key: Path | None = option(None, "PEM file of this certificate's key.", shown="the file of the certificate")
    dask_trust_network: bool = option(False, "Allow dask:// without TLS to another computer.")

    def __post_init__(self) -> None:
        """Check every value and convert it to its type.

        A path may be given as text, and a list as a tuple or as text with commas.

        Raises:
            UsageError: a value is not valid.
        """
        for o in declared_options():
            value = getattr(self, o.name)
            if value is None and o.default is None:
                continue
            try:
                object.__setattr__(self, o.name, _value(o, value))
            except ValueError as error:
                raise UsageError(f"{o.name}: {error}") from error


@dataclass(frozen=True)
class Option:
    """One declared option; `option` makes it.

    Attributes:
        name: the name of the field.
        key: the name on the command line, in `audit.toml` and, in capitals, in the environment.
        kind: the type: str, int, float, bool or Path. For a list, the type of each item.
        many: whether the value is a list. On the command line and in the environment, commas separate its items.
        default, help, lowest, complete, shown, files, environment: see `option`.
    """

    name: str
    key: str
    kind: type
    many: bool
    default: Any
    help: str
    lowest: int | None
    complete: str | None
    shown: str | None
    files: bool
    environment: bool

    @property
    def variable(self) -> str:
        """The environment variable that sets the option."""
        return _PREFIX + self.key.upper()

    @property
    def default_text(self) -> str | None:
        """The default in words; None if it is empty."""
        return self.shown or (None if self.default in (None, ()) else as_text(self.default))


@cache
def declared_options() -> tuple[Option, ...]:
    """All options of an audit, in the order of their declaration."""
    hints = get_type_hints(AuditOptions)
    options = []
    for f in fields(AuditOptions):
        kind = next((k for k in get_args(hints[f.name]) if k is not type(None)), hints[f.name])  # Path | str: Path
        kind = hints[f.name] if get_origin(hints[f.name]) is tuple else kind
        many = get_origin(kind) is tuple
        declared = {**f.metadata, "key": f.metadata["key"] or f.name}
        options.append(
            Option(f.name, kind=get_args(kind)[0] if many else kind, many=many, default=f.default, **declared)
        )
    return tuple(options)


@dataclass(frozen=True)
class Resolved:
    """The options of an audit, and the source of each value by field name."""

    options: AuditOptions
    sources: dict[str, str]


def resolve(given: Mapping[str, Any], config: Path | None, environment: Mapping[str, str] = os.environ) -> Resolved:
    """Combine an audit's options. The command line overrides the environment, which overrides the file.

    Args:
        given: values from the command line, by field name; None for an option that was not given.
        config: an `audit.toml`, or None.
        environment: the environment; its variables SIXPIXELS_<OPTION> are read.

    Raises:
        UsageError: a value from the command line or the environment is not valid, or a variable is misspelled.
        InputError: the file cannot be read or is not valid.
    """
    values = {} if config is None else read_config(config)
    sources = dict.fromkeys(values, str(config))
    options = declared_options()
    known = _OTHER_VARIABLES | {o.variable for o in options}
    forbidden = {o.variable for o in options if not o.environment}
    for variable in sorted(environment):
        # Other programs may use this prefix, so an unknown variable is a mistake only if it resembles an option.
        if variable.startswith(_PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable.removeprefix(_PREFIX), [o.key.upper() for o in options], 1)
            if near:
                raise UsageError(f"{variable} is not an audit option; did you mean {_PREFIX}{near[0]}?")
        if environment[variable] and variable in forbidden:
            raise UsageError(f"{variable}: this is not taken from the environment; name it on the command line")
    texts = {o.name: (o.variable, environment.get(o.variable)) for o in options}
    said = {o.name: (f"--{o.key.replace('_', '-')}", given.get(o.name)) for o in options}
    for source, raw in (("environment", texts), ("command line", said)):
        for o in options:
            where, value = raw[o.name]
            if value is None or (source == "environment" and not value):
                continue
            try:
                values[o.name] = _value(o, value)
            except ValueError as error:
                raise UsageError(f"{where}: {error}") from error
            sources[o.name] = source if source == "command line" else f"environment ({where})"
    return Resolved(AuditOptions(**values), {o.name: sources.get(o.name, "default") for o in options})


def read_config(path: Path) -> dict[str, Any]:
    """Read the values in an `audit.toml`, by field name. Its relative paths start at its own folder.

    Raises:
        InputError: the file cannot be read or is not valid. The message names the key, and the nearest valid key.
    """
    top, values = read_table(path, SCHEMA_VERSION), {}
    for o in declared_options():
        raw = top.take(o.key, object, None)
        if raw is None:
            continue
        try:
            value = _value(o, _lines(raw) if o.name == "settings" else raw)
        except ValueError as error:
            raise top.fail(o.key, str(error)) from error
        values[o.name] = _change_paths(o, value, lambda text: str(path.parent / text))
    top.done()
    return values


def write_config(path: Path, options: AuditOptions) -> None:
    """Write an `audit.toml` with every option and its help. Relative paths become relative to the file's folder.

    Raises:
        UsageError: the file exists, or its name does not end in .toml.
        InputError: the file cannot be written.
    """
    import tomlkit

    if path.suffix != ".toml" or path.exists():
        raise UsageError(f"{path}: must be a new .toml file; give a name that does not exist yet")

    def moved(text: str) -> str:
        return text if Path(text).is_absolute() else os.path.relpath(text, path.parent)

    document = tomlkit.document()
    document.add(
        tomlkit.comment("Run with: sixpixels audit --config FILE. Command line and environment override this file.")
    )
    document.add("schema", tomlkit.item(SCHEMA_VERSION))
    for o in declared_options():
        value = _change_paths(o, getattr(options, o.name), moved)
        document.add(tomlkit.nl())
        document.add(tomlkit.comment(o.help))
        if value is None:
            document.add(tomlkit.comment(f"{o.key} is not set" + (f". Default: {o.shown}" if o.shown else "")))
        else:
            plain = list(value) if o.many else str(value) if o.kind is Path else value
            document.add(o.key, tomlkit.item(plain))
    write_bytes(path, tomlkit.dumps(document).encode())


def as_text(value: object) -> str:
    """Write a value as on the command line; None becomes an empty text."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def _value(o: Option, raw: Any) -> Any:
    """Convert a value to the option's type, from text or from a value of TOML or typer.

    Raises:
        ValueError: the value does not fit the type.
    """
    if not o.many:
        return _one(o, raw)
    items = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list, or text with commas, not {raw!r}")  # noqa: TRY004
    items = [item.strip() if isinstance(item, str) else item for item in items]
    return tuple(_one(o, item) for item in items if item != "")


def _one(o: Option, raw: Any) -> Any:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    problem = ValueError(f"must be {names[o.kind]}, not {raw!r}")
    text = str(raw) if isinstance(raw, Path) or (o.kind is float and type(raw) is int) else raw
    try:
        if o.kind is bool:
            value: Any = {"true": True, "false": False}[str(text).lower()]
        elif isinstance(text, bool) or not isinstance(text, str | o.kind) or text == "":
            raise problem
        else:
            value = o.kind(text)
    except (ValueError, KeyError) as error:
        raise problem from error
    if o.lowest is not None and value < o.lowest:
        raise ValueError(f"must be at least {o.lowest}, not {value}")
    return value


def _lines(raw: Any) -> Any:
    """Turn a [set] table (``pgd.epsilon = "8/255"`` or ``[set.pgd]``) into a list of texts like pgd.epsilon=8/255."""
    if not isinstance(raw, dict):
        return raw
    lines = []
    for attack, parameters in raw.items():
        flat = (
            {f"{attack}.{p}": v for p, v in parameters.items()}
            if isinstance(parameters, dict)
            else {attack: parameters}
        )
        for place, value in flat.items():
            if not isinstance(value, str | int | float):
                raise ValueError(f"{place} must be a number, text, or true or false, not {value!r}")  # noqa: TRY004
            lines.append(f"{place}={str(value).lower() if isinstance(value, bool) else value}")
    return lines


def _change_paths(o: Option, value: Any, change: Callable[[str], str]) -> Any:
    """Apply `change` to every path in an option's value."""
    if value is None:
        return None
    if o.name == "settings":
        return tuple(_change_setting(line, change) for line in value)
    if o.kind is Path:
        return Path(change(str(value)))
    if not o.files:
        return value
    names = [change(n) if "/" in n or n.endswith((".toml", ".onnx")) else n for n in (value if o.many else [value])]
    return tuple(names) if o.many else names[0]


def _change_setting(line: str, change: Callable[[str], str]) -> str:
    from toolkit.attacks.settings import is_file
    from toolkit.registry import discover

    place, equals, text = line.partition("=")
    name, _, parameter = place.rpartition(".")
    attack = discover("attack").get(name)
    return f"{place}={change(text)}" if equals and attack is not None and is_file(attack, parameter) else line
