"""The JSON Schema of manifests, built from the values that the reader allows."""

from __future__ import annotations

from typing import Any, get_args

from toolkit.verifiers.hardened import MOST_DRAWS
from toolkit.verifiers.manifest import (
    LARGEST_SIDE,
    SCHEMA_VERSION,
    Channels,
    CheckpointFormat,
    Layout,
    Measure,
    Standardization,
)

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_SIDE = {"type": "integer", "minimum": 8, "maximum": LARGEST_SIDE}
_HASH = {
    "type": "string",
    "description": "The SHA-256 of the file. It is checked before anything parses the file. For a folder, it is the "
    "hash of the list of its files and their hashes.",
}


def manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `model.toml`.

    Two rules are checked only by the reader: files must exist, and ranges must rise.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sixpixels manifest",
        "description": (
            "A file `model.toml` beside a model file, or `x.toml` beside `x.onnx`. It describes the input, the output "
            "and the decision of a verifier."
        ),
        "type": "object",
        "properties": {
            "schema": {"const": SCHEMA_VERSION, "description": "Version of this format."},
            "name": {**_TEXT, "description": "Name of the verifier in reports."},
            **_required_sections(),
            **_optional_sections(),
        },
        "required": ["schema", "name", "model", "input", "output", "decision"],
        "additionalProperties": False,
    }


def _required_sections() -> dict[str, Any]:
    return {
        "model": _table(
            "The deployed model file.",
            ("file", "license", "provenance"),
            file={**_TEXT, "description": "Path relative to the manifest, inside its folder."},
            sha256=_HASH,
            license={**_TEXT, "description": "License of the file."},
            provenance={**_TEXT, "description": "Where the file comes from."},
        ),
        "input": _table(
            "The input tensor. A crop in [0, 1] is scaled to low + crop (high - low) and then standardized.",
            ("name", "height", "width", "layout", "channels", "range"),
            name={**_TEXT, "description": "Name of the tensor."},
            height={**_SIDE, "description": "Height of a crop in pixels."},
            width={**_SIDE, "description": "Width of a crop in pixels."},
            layout=_choice(Layout, "Order of the axes."),
            channels=_choice(Channels, "Order of the channels."),
            range=_numbers(2, "The values [low, high] of black and white."),
            standardization=_choice(
                Standardization, "Standardize with `mean` and `std`, or with each image's own mean and deviation."
            )
            | {"default": "fixed"},
            mean=_numbers(3, "Subtracted from each channel, in the order of `channels`. One number applies to all."),
            std=_numbers(3, "Divides each channel; positive. One number applies to all."),
        ),
        "output": _table(
            "The embedding.",
            ("name", "size", "normalize"),
            name={**_TEXT, "description": "Name of the tensor."},
            size={"type": "integer", "minimum": 1, "description": "Length of an embedding."},
            normalize={"type": "boolean", "description": "Whether to L2-normalize it before computing distances."},
            lipschitz={
                **_NUMBER,
                "exclusiveMinimum": 0,
                "description": "How far the tensor moves at most, in L2, for each unit that a crop in [0, 1] is "
                "changed in L2. An audit checks it by the operators of the file, and certifies decisions with it.",
            },
        ),
        "decision": _table(
            'The decision rule. Two crops are "same" if their distance is below the threshold.',
            ("metric", "threshold", "maximum"),
            metric=_choice(Measure, "The distance between two embeddings."),
            threshold={**_NUMBER, "exclusiveMinimum": 0, "description": "The threshold; it must be below the maximum."},
            maximum={**_NUMBER, "exclusiveMinimum": 0, "description": "The largest possible distance."},
        ),
    }


def _optional_sections() -> dict[str, Any]:
    return {
        "alignment": _table(
            "How to align faces. Without this table, images must already be crops of the input's size.",
            ("template",),
            template={
                "type": "array",
                "items": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2},
                "minItems": 5,
                "maxItems": 5,
                "description": "Positions [x, y] of eyes, nose and mouth corners in the crop, in pixels; left first.",
            },
        ),
        "checkpoint": _table(
            "The original framework's model, for gradients and export. Without it, gradients come from the ONNX file.",
            ("file", "format"),
            file={
                **_TEXT,
                "description": "Path of the file, or of a SavedModel's folder, relative to the manifest, inside its "
                "folder.",
            },
            format=_choice(CheckpointFormat, "Format of the checkpoint."),
            sha256=_HASH,
            network={"type": "object", "description": "For keras-weights: the network's name and arguments."},
        ),
        "detector": _table(
            "The detector of a hardened file: a second output with an attack score for each image.",
            ("output", "threshold", "false_alarm"),
            output={**_TEXT, "description": "Name of the tensor."},
            threshold={
                **_NUMBER,
                "exclusiveMinimum": 0,
                "description": "Images with a score above the threshold are flagged as attacks.",
            },
            false_alarm={
                **_NUMBER,
                "exclusiveMinimum": 0,
                "exclusiveMaximum": 1,
                "description": "The share of clean images that the calibrated threshold flags.",
            },
        ),
        "vote": _table(
            "The vote of a hardened file: noisy copies of a crop decide by majority, with a certificate.",
            ("draws", "sigma", "confidence"),
            draws={"type": "integer", "minimum": 2, "maximum": MOST_DRAWS, "description": "Number of noisy copies."},
            sigma={
                **_NUMBER,
                "exclusiveMinimum": 0,
                "maximum": 10,
                "description": "Standard deviation of the noise, as a share of the pixel range.",
            },
            confidence={
                **_NUMBER,
                "minimum": 0.5,
                "exclusiveMaximum": 1,
                "description": "Confidence of each certificate.",
            },
        ),
    }


def _table(description: str, required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _choice(literal: Any, description: str) -> dict[str, Any]:
    return {"enum": list(get_args(literal)), "description": description}


def _numbers(count: int, description: str) -> dict[str, Any]:
    several = {"type": "array", "items": _NUMBER, "minItems": count, "maxItems": count}
    return {"anyOf": [several, _NUMBER] if count == 3 else [several], "description": description}
