"""The JSON Schema of profiles, built from the registered defenses."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from toolkit.profiles.detector import MOST_SQUEEZERS, Detector
from toolkit.profiles.profile import SCHEMA_VERSION
from toolkit.profiles.vote import Vote
from toolkit.registry import discover
from toolkit.verifiers.hardened import MOST_DRAWS

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
# Keys beside the names of the defenses. A defense of a plugin may have any name in lower case.
_DEFENSE, _OPTION = "Defense", "Option"
_DRAWS = {"type": "integer", "minimum": 2, "maximum": MOST_DRAWS}


def profile_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of profiles, for editors and for programs that write profiles.

    It describes every defense with the types, ranges and defaults of its parameters. Three rules are checked only by
    the reader: files must exist, some parameters limit each other, and TOML's 3.0 is not an integer.
    """
    known = discover("defense")
    # The options of a choice must not be choices.
    simple = [name for name, cls in known.items() if not any(map(_nested, dataclasses.fields(cls)))]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sixpixels defense profile",
        "type": "object",
        "properties": {
            "schema": {"const": SCHEMA_VERSION, "description": "Version of this format."},
            "name": {"type": "string", "minLength": 1, "description": "Name of the profile in reports."},
            "description": {"type": "string", "description": "One sentence about the purpose.", "default": ""},
            "defense": {
                **_defenses(_DEFENSE),
                "description": "The defenses, in the order in which they run. The list may be empty.",
            },
            "ensemble": _table("Averages the embeddings of several draws of the random defenses.", draws=_DRAWS),
            "detector": _table(
                (inspect.getdoc(Detector) or "").splitlines()[0],
                squeezer={**_defenses(_OPTION), "minItems": 1, "maxItems": MOST_SQUEEZERS},
                threshold={"type": "number", "exclusiveMinimum": 0},
                false_alarm={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            ),
            "vote": _table(
                (inspect.getdoc(Vote) or "").splitlines()[0],
                threshold={"type": "number", "exclusiveMinimum": 0},
                confidence={"type": "number", "minimum": 0.5, "exclusiveMaximum": 1},
            ),
        },
        "required": ["schema", "name"],
        "additionalProperties": False,
        "$defs": {
            _DEFENSE: _one_of(known),
            _OPTION: _one_of(simple),
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
        return {**_defenses(_OPTION), "minItems": declared["fewest"], "maxItems": declared["most"]}
    schema = {"type": _TYPES[type(field.default)], "default": field.default}
    if declared.get("file"):
        return {**schema, "pattern": r"^([0-9A-Za-z-]+|.+\.toml)$"}
    if "lowest" not in declared:
        return schema
    lowest, highest, step = declared["lowest"], declared["highest"], declared["step"]
    if step > 1:
        return {**schema, "enum": list(range(lowest, highest + 1, step))}
    return {**schema, "minimum": lowest, "maximum": highest}
