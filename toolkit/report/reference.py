"""Reference pages: turns a JSON Schema into Markdown, with one table for each object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_HEAD = ("| key | type | required | description |", "| --- | --- | --- | --- |")
_RANGES = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "above {}",
    "exclusiveMaximum": "below {}",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "pattern": "matches `{}`",
}
_NAMES = {"string": "text", "integer": "whole number", "array": "list", "object": "table", "boolean": "true or false"}


def describe(schema: dict[str, Any]) -> str:
    """Describe a JSON Schema as a Markdown page.

    It supports the part of draft 2020-12 that this project's schemas use. Each inner object and each of the ``$defs``
    becomes a section.
    """
    parts = [f"# {schema['title']}", *_description(schema), *_section(schema)]
    for place, inner in _objects(schema, ""):
        parts += ["", f"## {place}", *_description(inner), *_section(inner)]
    for name, inner in schema.get("$defs", {}).items():
        parts += ["", f"## {name}", *_description(inner), *_section(inner)]
        for place, deeper in _objects(inner, name):
            parts += ["", f"## {place}", *_description(deeper), *_section(deeper)]
    return "\n".join(parts) + "\n"


def _description(schema: dict[str, Any]) -> list[str]:
    return ["", schema["description"]] if "description" in schema else []


def _section(schema: dict[str, Any]) -> list[str]:
    needed = schema.get("required", ())
    rows = [
        f"| `{key}` | {_cell(_kind(inner))} | {'yes' if key in needed else ''} | {_cell(_what(inner))} |"
        for key, inner in schema.get("properties", {}).items()
    ]
    kind = _kind({key: value for key, value in schema.items() if key not in ("properties", "description")})
    return ["", *_HEAD, *rows] if rows else ["", kind[0].upper() + kind[1:] + "."]


def _objects(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object with properties inside a schema, and its path."""
    for key, inner in schema.get("properties", {}).items():
        here = f"{place}.{key}" if place else key
        for one in (inner, *inner.get("anyOf", ()), *inner.get("oneOf", ())):
            item = one.get("items")
            found = item if isinstance(item, dict) and "properties" in item else one
            if "properties" in found:
                yield here, found
                yield from _objects(found, here)


def _kind(schema: dict[str, Any]) -> str:
    """Describe the type and the limits of a value in words."""
    if "const" in schema:
        return f"`{_plain(schema['const'])}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{_plain(value)}`" for value in schema["enum"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_kind(one) for one in schema[key]))
    kinds = schema.get("type", "anything")
    words = [_one(kind, schema) for kind in (kinds if isinstance(kinds, list) else [kinds])]
    limits = [text.format(schema[key]) for key, text in _RANGES.items() if key in schema]
    if schema.get("minItems", -1) == schema.get("maxItems"):
        limits = [f"exactly {schema['minItems']}"]
    return " or ".join(words) + (f" ({', '.join(limits)})" if limits else "")


def _one(kind: str, schema: dict[str, Any]) -> str:
    if kind == "array" and "prefixItems" in schema:
        return "list of " + ", ".join(_kind(item) for item in schema["prefixItems"])
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_kind(schema['items'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"table of {_kind(schema['additionalProperties'])}"
    return _NAMES.get(kind, "nothing" if kind == "null" else kind)


def _what(schema: dict[str, Any]) -> str:
    default = f"Default: `{_plain(schema['default'])}`." if schema.get("default") not in (None, "", []) else ""
    return " ".join(part for part in (schema.get("description", ""), default) if part)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
