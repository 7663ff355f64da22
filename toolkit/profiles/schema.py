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
_DRAWS = {"type": "integer", "minimum": 2, "maximum": MOST_DRAWS}


def profile_schema() -> dict[str, Any]:
    """The schema (draft 2020-12), for editors and for whoever writes profiles by program.

    It knows every defense, its parameters, their types, ranges and defaults. The reader alone knows which files exist,
    how two parameters bound each other, and that TOML's 3.0 is no whole number.
    """
    known = discover(toolkit.defenses, "DEFENSE")
    # What a choice is made of may not be a choice.
    simple = [name for name, cls in known.items() if not any(map(_nested, dataclasses.fields(cls)))]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sixpixels defense profile",
        "type": "object",
        # One line for each key of a profile.
        "properties": {
            "schema": {"const": SCHEMA_VERSION, "description": "Version of this format."},
            "name": {"type": "string", "minLength": 1, "description": "By which reports call the profile."},
            "description": {"type": "string", "description": "One sentence on what it is for.", "default": ""},
            "defense": {**_defenses("defense"), "description": "In the order in which they are run; none is allowed."},
            "ensemble": _table("The mean embedding of several draws of the random defenses.", draws=_DRAWS),
            "detector": _table(
                (inspect.getdoc(Detector) or "").splitlines()[0],
                squeezer={**_defenses("option"), "minItems": 1, "maxItems": MOST_SQUEEZERS},
                threshold={"type": "number", "exclusiveMinimum": 0},
                false_alarm={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            ),
        },
        "required": ["schema", "name"],
        "additionalProperties": False,
        "$defs": {
            "defense": _one_of(known),
            "option": _one_of(simple),
            **{name: _defense(name, cls) for name, cls in known.items()},
        },
    }


def _table(description: str, **properties: Any) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _defenses(kind: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/$defs/{kind}"}}


def _one_of(names: Any) -> dict[str, Any]:
    return {"type": "object", "required": ["name"], "oneOf": [{"$ref": f"#/$defs/{name}"} for name in names]}


def _defense(name: str, cls: type) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    return {
        "description": " ".join((inspect.getdoc(cls) or "").split()),
        "type": "object",
        "properties": {"name": {"const": name}, **{field.name: _parameter(field) for field in fields}},
        "required": ["name", *(field.name for field in fields if _nested(field))],
        "additionalProperties": False,
    }


def _nested(field: dataclasses.Field[Any]) -> bool:
    return bool(field.metadata.get("defenses"))


def _parameter(field: dataclasses.Field[Any]) -> dict[str, Any]:
    declared = field.metadata
    if _nested(field):
        return {**_defenses("option"), "minItems": declared["fewest"], "maxItems": declared["most"]}
    schema = {"type": _TYPES[type(field.default)], "default": field.default}
    if declared.get("file"):
        return {**schema, "pattern": r"^([0-9A-Za-z-]+|.+\.toml)$"}
    if "lowest" not in declared:
        return schema
    lowest, highest, step = declared["lowest"], declared["highest"], declared["step"]
    if step > 1:
        return {**schema, "enum": list(range(lowest, highest + 1, step))}
    return {**schema, "minimum": lowest, "maximum": highest}
