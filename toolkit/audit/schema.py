"""The JSON Schema of `audit.toml`, from the declared options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.audit.options import SCHEMA_VERSION, declared_options


def config_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `audit.toml`. It does not check that files, attacks and names exist."""
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
