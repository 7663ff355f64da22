"""The JSON Schema of profiles, made from the defenses that are registered."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import toolkit.defenses
from toolkit.profiles.detector import MOST_SQUEEZERS, Detector
from toolkit.profiles.profile import MOST_DRAWS, SCHEMA_VERSION
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
            "ensemble": {
                "description": "The mean embedding of several draws of the random defenses.",
                "type": "object",
                "properties": {"draws": {"type": "integer", "minimum": 2, "maximum": MOST_DRAWS}},
                "required": ["draws"],
                "additionalProperties": False,
            },
            "detector": {
                "description": (inspect.getdoc(Detector) or "").splitlines()[0],
                "type": "object",
                "properties": {
                    "squeezer": {
                        "type": "array",
                        "items": {"$ref": "#/$defs/defense"},
                        "minItems": 1,
                        "maxItems": MOST_SQUEEZERS,
                    },
                    "threshold": {"type": "number", "exclusiveMinimum": 0},
                    "false_alarm": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                },
                "required": ["squeezer", "threshold", "false_alarm"],
                "additionalProperties": False,
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
