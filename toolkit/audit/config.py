"""Options of an audit: declared once, and taken from the command line, the environment, `audit.toml`, or a default."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from toolkit.errors import UsageError
from toolkit.files import write_bytes
from toolkit.tables import read_table

SCHEMA_VERSION = 1
_PREFIX = "SIXPIXELS_"
# Variables of that prefix that are no options of an audit.
_OTHER_VARIABLES = {"SIXPIXELS_CACHE", "SIXPIXELS_CONFIG"}


def option(
    default: Any,
    help: str,  # noqa: A002
    *,
    key: str | None = None,
    lowest: int | None = None,
    complete: str | None = None,
    shown: str | None = None,
    files: bool = False,
) -> Any:
    """A field of `AuditOptions`.

    Args:
        default: its value where nobody gives one; None where that is decided later.
        help: one or two sentences, for ``--help``, ``config show`` and the schema.
        key: its name for users, by default the field's.
        lowest: the smallest number that is allowed.
        complete: what a shell completes it with: models, profiles, attacks.
        shown: the default in words.
        files: whether a text with a slash in it, or one that ends in .toml or .onnx, is a path.
    """
    declared = {"help": help, "key": key, "lowest": lowest, "complete": complete, "shown": shown, "files": files}
    return field(default=default, metadata=declared)


@dataclass(frozen=True)
class AuditOptions:
    """What an audit is asked for. A new option is one line here, and whoever uses it."""

    model: str = option(
        "facenet-mini",
        "A shipped model's name, an .onnx file with a manifest beside it, or a model.toml.",
        complete="models",
        files=True,
    )
    pairs: Path | None = option(
        None,
        "Labeled pairs: an LFW folder with pairs.txt, a CSV of two paths and a label, or a folder with one folder per "
        "person.",
        shown="the generated faces that come with the toolkit",
    )
    folds: tuple[int, ...] | None = option(None, "Only these folds of the pair list, for example 7,8.", shown="all")
    limit: int | None = option(
        None, "At most this many pairs, half of them genuine.", lowest=1, shown="40; suite paper: 50"
    )
    group: int | None = option(None, "Enroll so many people of the pairs; everybody else tries to match any of them.")
    threshold: float | None = option(
        None, "Pairs are the same below this distance.", shown="as the verifier's manifest says"
    )
    seed: int = option(0, "Seed of every random choice.", lowest=0)
    suite: str = option(
        "standard", "standard; or paper: the paper's attacks and, on all of LFW, its pairs, tables, figures."
    )
    attacks: tuple[str, ...] | None = option(
        None, "Attacks, separated by commas; see `attacks`.", complete="attacks", shown="those of the suite"
    )
    profiles: tuple[str, ...] = option(
        ("none", "mean3", "n2c"),
        "Profiles: shipped names or .toml files, separated by commas.",
        complete="profiles",
        files=True,
    )
    settings: tuple[str, ...] = option(
        (),
        "A parameter of an attack, for example pgd.epsilon=8/255. May be repeated.",
        key="set",
    )
    knowledge: tuple[str, ...] = option(("zero", "perfect"), "What the attacker knows: zero, partial, perfect.")
    certify: tuple[float, ...] = option(
        (), "Also certify by randomized smoothing with noise of these standard deviations, for example 0.1,0.25."
    )
    certify_samples: int = option(1000, "Noisy draws of each pair for a certificate.", lowest=1)
    certify_confidence: float = option(0.999, "One-sided confidence of each certificate.")
    run: Path | None = option(None, "Folder of the run.", shown="runs/ and a hash of what is asked")
    provider: str = option("auto", "ONNX Runtime execution provider: auto, cpu, cuda, tensorrt, or a full name.")
    require_provider: str | None = option(None, "Fail unless the session really runs on this provider.")
    threads: int = option(0, "Threads of ONNX Runtime; 0 lets it choose.", lowest=0)
    format: tuple[str, ...] = option(
        ("terminal",), "Reports to make: terminal, html, markdown, sarif, junit, json, separated by commas."
    )
    with_faces: bool = option(False, "Put the attacked faces into the HTML report; faces are personal data.")
    policy: str = option("access-control", "How risk is rated: a shipped policy's name, or a .toml file.", files=True)
    workers: str = option("1", "Who crafts: this process (1), so many processes, or dask://host:port.")


@dataclass(frozen=True)
class Option:
    """One declared option, as `option` made it.

    Attributes:
        name: of the field.
        key: on the command line, in `audit.toml` and, in capitals, in the environment.
        kind: str, int, float, bool or Path, of each value where there may be `many`.
        many: whether it is a list, written with commas on the command line and in the environment.
        default, help, lowest, complete, shown, files: see `option`.
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

    @property
    def variable(self) -> str:
        """The environment variable."""
        return _PREFIX + self.key.upper()

    @property
    def default_text(self) -> str | None:
        """The default in words, None where there is nothing to say."""
        return self.shown or (None if self.default in (None, ()) else as_text(self.default))


def declared_options() -> tuple[Option, ...]:
    """The options of an audit in their order."""
    hints = get_type_hints(AuditOptions)
    options = []
    for f in fields(AuditOptions):
        kind = next((k for k in get_args(hints[f.name]) if k is not type(None)), hints[f.name])
        kind = hints[f.name] if get_origin(hints[f.name]) is tuple else kind
        many = get_origin(kind) is tuple
        declared = {**f.metadata, "key": f.metadata["key"] or f.name}
        options.append(
            Option(f.name, kind=get_args(kind)[0] if many else kind, many=many, default=f.default, **declared)
        )
    return tuple(options)


@dataclass(frozen=True)
class Resolved:
    """The options of an audit, and by field name where each came from."""

    options: AuditOptions
    sources: dict[str, str]


def resolve(given: Mapping[str, Any], config: Path | None, environment: Mapping[str, str] = os.environ) -> Resolved:
    """Put together an audit's options: command line before environment before file before default.

    Args:
        given: from the command line, by field name; None where an option was not given.
        config: an `audit.toml`, or None.
        environment: its variables SIXPIXELS_<OPTION>.

    Raises:
        UsageError: a value of the command line or of the environment is not valid, or a variable is misspelled.
        InputError: the file cannot be read or is not valid.
    """
    values = {} if config is None else read_config(config)
    sources = dict.fromkeys(values, str(config))
    options = declared_options()
    known = _OTHER_VARIABLES | {o.variable for o in options}
    for variable in sorted(environment):
        # Other programs may have variables that begin so, but one that is nearly an option's is a mistake.
        if variable.startswith(_PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable.removeprefix(_PREFIX), [o.key.upper() for o in options], 1)
            if near:
                raise UsageError(f"{variable} is no option of an audit; did you mean {_PREFIX}{near[0]}?")
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
    """Read an `audit.toml`: the values that it gives, by field name; its relative paths are relative to it.

    Raises:
        InputError: the file cannot be read or is not valid; the message names the key, and the nearest valid one.
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
    """Write an `audit.toml` with every option and what it is for; paths that are relative become relative to it.

    Raises:
        UsageError: the file exists, or does not end in .toml.
        InputError: it cannot be written.
    """
    import tomlkit

    if path.suffix != ".toml" or path.exists():
        raise UsageError(f"{path}: must be a .toml file that does not exist yet")

    def moved(text: str) -> str:
        return text if Path(text).is_absolute() else os.path.relpath(text, path.parent)

    document = tomlkit.document()
    document.add(tomlkit.comment("An audit: sixpixels audit --config FILE. Command line and environment go before it."))
    document.add("schema", tomlkit.item(SCHEMA_VERSION))
    for o in declared_options():
        value = _change_paths(o, getattr(options, o.name), moved)
        document.add(tomlkit.nl())
        document.add(tomlkit.comment(o.help))
        if value is None:
            document.add(tomlkit.comment(f"{o.key} is not given" + (f": {o.shown}" if o.shown else "")))
        else:
            plain = list(value) if o.many else str(value) if o.kind is Path else value
            document.add(o.key, tomlkit.item(plain))
    write_bytes(path, tomlkit.dumps(document).encode())


def as_text(value: object) -> str:
    """A value as it is written on the command line; empty where there is none."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def _value(o: Option, raw: Any) -> Any:
    """A value of the option's type from text, or from what TOML or typer made of it.

    Raises:
        ValueError: it is none.
    """
    if not o.many:
        return _one(o, raw)
    items = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list, or a text with commas, not {raw!r}")  # noqa: TRY004
    items = [item.strip() if isinstance(item, str) else item for item in items]
    return tuple(_one(o, item) for item in items if item != "")


def _one(o: Option, raw: Any) -> Any:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
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
    """The [set] table, ``pgd.epsilon = "8/255"`` or ``[set.pgd]``, as the list of texts that may also be written."""
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
                raise ValueError(f"{place} must be a number, a text, or true or false, not {value!r}")  # noqa: TRY004
            lines.append(f"{place}={str(value).lower() if isinstance(value, bool) else value}")
    return lines


def _change_paths(o: Option, value: Any, change: Callable[[str], str]) -> Any:
    """The option's value with `change` applied to all paths in it."""
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
    import toolkit.attacks
    from toolkit.attacks.settings import is_file
    from toolkit.registry import discover

    place, equals, text = line.partition("=")
    name, _, parameter = place.rpartition(".")
    attack = discover(toolkit.attacks, "ATTACK").get(name)
    return f"{place}={change(text)}" if equals and attack is not None and is_file(attack, parameter) else line


def config_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `audit.toml`; the reader alone knows which files, attacks and values exist."""
    types = {str: "string", int: "integer", float: "number", bool: "boolean", Path: "string"}
    properties: dict[str, Any] = {"schema": {"const": SCHEMA_VERSION, "description": "Version of this format."}}
    for o in declared_options():
        one: dict[str, Any] = {"type": types[o.kind]}
        one |= {"minimum": o.lowest} if o.lowest is not None else {}
        one |= {"minLength": 1} if one["type"] == "string" else {}
        schema = {"anyOf": [{"type": "array", "items": one}, {"type": "string"}]} if o.many else one
        if o.name == "settings":
            schema = {"anyOf": [*schema["anyOf"], _SET]}
        default = list(o.default) if o.many and o.default is not None else o.default
        schema |= {"description": o.help + (f" Default: {o.shown}." if o.shown else "")}
        properties[o.key] = schema | ({} if default is None else {"default": default})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sixpixels audit",
        "type": "object",
        "properties": properties,
        "required": ["schema"],
        "additionalProperties": False,
    }


_SCALAR = {"type": ["string", "number", "boolean"]}
_SET = {
    "type": "object",
    "additionalProperties": {"anyOf": [_SCALAR, {"type": "object", "additionalProperties": _SCALAR}]},
}
