"""JSON documents: write results as JSON, and read them back with every value checked against its type."""

from __future__ import annotations

import json
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from toolkit import __version__
from toolkit.errors import InputError
from toolkit.plain import parse_json, read_limited
from toolkit.statistics.intervals import Rate

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Schema versions by kind of document; kinds not listed have version 1. Readers reject other versions.
_VERSIONS = {"assessment": 6, "judgement": 2}
_LARGEST_FILE = 1 << 24


def to_json(document: DataclassInstance) -> str:
    """Serialize a result as JSON.

    The keys have a fixed order, all numbers are finite, and the first keys state the schema version, the kind and the
    version of sixpixels.

    Args:
        document: an instance of a dataclass. The kind of the document is the name of the class in lower case.

    Raises:
        ValueError: a number is not finite.
    """
    kind = type(document).__name__.lower()
    head = {"schema": _VERSIONS.get(kind, 1), "kind": kind, "sixpixels": __version__}
    return json.dumps({**head, **_plain(document)}, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Rate):
        wilson, exact = value.wilson(), value.clopper_pearson()
        return {
            "successes": value.successes,
            "trials": value.trials,
            "value": value.value,
            "wilson_95": list(wilson),
            "clopper_pearson_95": list(exact),
            "upper_95": value.upper_bound(),
        }
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON document that `to_json` wrote.

    Args:
        path: the file.
        kind: the expected kind of document.

    Raises:
        InputError: the file cannot be used (`plain.parse_json`), or has another kind or schema version.
    """
    content = parse_json(read_limited(path, _LARGEST_FILE), path)
    version = _VERSIONS.get(kind, 1)
    if not isinstance(content, dict) or (content.get("schema"), content.get("kind")) != (version, kind):
        raise InputError(
            f"{path}: is not a document of kind {kind}, schema {version}; write it again with this sixpixels version"
        )
    return content


def from_plain(kind: Any, value: Any, where: str = "document") -> Any:
    """Convert parsed JSON back to an object of type `kind`. This is the inverse of `to_json`.

    Args:
        kind: a dataclass, or the type of a field: str, int, float, bool, object, a table
            (`dict[str, object]`), a Literal, an optional or a tuple.
        value: parsed JSON. Keys that the dataclass does not have are ignored, because documents also contain derived
            values.
        where: the name of the value in error messages.

    Raises:
        ValueError: the value does not have this type; the message says where.
        InputError: a dataclass rejects its values.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = next(one for one in get_args(kind) if one is not type(None))
        return None if value is None else from_plain(inner, value, where)
    if origin is tuple:
        return _tuple(get_args(kind), value, where)
    if kind is Rate or is_dataclass(kind):
        return _table(kind, value, where)
    return _scalar(kind, value, where)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) is Literal:
        _check(value, value in get_args(kind), f"one of {', '.join(get_args(kind))}", where)
    elif kind is float:
        _check(value, type(value) in (int, float), "a number", where)
        return float(value)
    elif kind == dict[str, object]:
        _check(value, isinstance(value, dict), "a table", where)
    elif kind is object:
        return tuple(value) if isinstance(value, list) else value
    else:
        _check(value, type(value) is kind, kind.__name__, where)
    return value


def _table(kind: Any, value: Any, where: str) -> Any:
    # Everything else in a rate is derived from its two counts.
    hints = {"successes": int, "trials": int} if kind is Rate else get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    for name in names:
        _check(value, isinstance(value, dict) and name in value, f"a table with {name!r}", where)
    return kind(**{name: from_plain(hints[name], value[name], f"{where}.{name}") for name in names})


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _check(value, isinstance(value, list), "a list", where)
    if kinds[1:] == (...,):
        kinds = kinds[:1] * len(value)
    _check(value, len(value) == len(kinds), f"a list of {len(kinds)}", where)
    return tuple(
        from_plain(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _check(value: Any, holds: object, expected: str, where: str) -> None:
    if not holds:
        raise ValueError(f"{where} is {str(value)[:40]!r}; it must be {expected}")
