"""The JSON Schema of profiles, made from the defenses that are registered."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import toolkit.defenses
from toolkit.profiles.profile import SCHEMA_VERSION
from toolkit.registry import discover

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def profile_schema() -> dict[str, Any]:
    """The schema (draft 2020-12), for editors and for whoever writes profiles by program.

    It knows every defense, its parameters, their types and defaults. Ranges are checked when a profile is read.
    """
    known = discover(toolkit.defenses, "DEFENSE")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sixpixels defense profile",
        "type": "object",
        "properties": {
            "schema": {"const": SCHEMA_VERSION},
            "name": {"type": "string", "minLength": 1},
            "description": {"type": "string"},
            "defense": {
                "description": "The defenses, in the order in which they are run; none for the bare verifier.",
                "type": "array",
                "items": {"$ref": "#/$defs/defense"},
            },
        },
        "required": ["schema", "name"],
        "additionalProperties": False,
        "$defs": {
            "defense": {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in known]},
            **{name: _defense(name, cls) for name, cls in known.items()},
        },
    }


def _defense(name: str, cls: type) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    return {
        "description": (inspect.getdoc(cls) or "").splitlines()[0],
        "type": "object",
        "properties": {"name": {"const": name}, **{field.name: _parameter(field) for field in fields}},
        "required": ["name", *(field.name for field in fields if field.metadata.get("defenses"))],
        "additionalProperties": False,
    }


def _parameter(field: dataclasses.Field[Any]) -> dict[str, Any]:
    if field.metadata.get("defenses"):
        return {"type": "array", "items": {"$ref": "#/$defs/defense"}}
    return {"type": _TYPES[type(field.default)], "default": field.default}
