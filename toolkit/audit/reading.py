"""Reading back what the toolkit wrote: dataclasses from parsed JSON, with every value checked against its type."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from toolkit.statistics.intervals import Rate


def from_plain(kind: Any, value: Any, where: str = "document") -> Any:
    """The `kind` whose plain form `value` is; the inverse of `toolkit.report.jsonable`.

    Args:
        kind: a dataclass, or what its fields may be: str, int, float, bool, object, a Literal, an optional or a tuple.
        value: parsed JSON. What a dataclass does not know is passed over, so that derived values can be written beside.
        where: names the value in messages.

    Raises:
        ValueError: the value is not of this kind; the message says where.
        InputError: a dataclass refuses its values.
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
    elif kind is object:
        return tuple(value) if isinstance(value, list) else value
    else:
        _check(value, type(value) is kind, kind.__name__, where)
    return value


def _table(kind: Any, value: Any, where: str) -> Any:
    # Of a rate, all else is derived from its two counts.
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
        raise ValueError(f"{where} is {str(value)[:40]!r}, and not {expected}")
