"""The JSON Schema of manifests, made from what their reader allows."""

from __future__ import annotations

from typing import Any, get_args

from toolkit.verifiers.manifest import (
    LARGEST_SIDE,
    SCHEMA_VERSION,
    Channels,
    CheckpointFormat,
    Layout,
    Metric,
    Standardization,
)

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_SIDE = {"type": "integer", "minimum": 8, "maximum": LARGEST_SIDE}
_HASH = {
    "type": "string",
    "description": "Its SHA-256, checked before anything parses it; a folder's is of its listing.",
}


def manifest_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of `model.toml`. The reader alone knows which files exist, and that ranges rise."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sixpixels manifest",
        "description": (
            "`model.toml` beside a model file, or `x.toml` beside `x.onnx`: what goes in, what comes out, and what "
            '"same" means.'
        ),
        "type": "object",
        # One line for each key that the reader takes.
        "properties": {
            "schema": {"const": SCHEMA_VERSION, "description": "Version of this format."},
            "name": {**_TEXT, "description": "By which reports call the verifier."},
            "model": _table(
                "The file that is deployed.",
                ("file", "license", "provenance"),
                file={**_TEXT, "description": "Relative to the manifest, and within its folder."},
                sha256=_HASH,
                license={**_TEXT, "description": "Of the file."},
                provenance={**_TEXT, "description": "Where it comes from."},
            ),
            "input": _table(
                "The input tensor. A crop in [0, 1] becomes low + crop (high - low), and is then standardized.",
                ("name", "height", "width", "layout", "channels", "range"),
                name={**_TEXT, "description": "Of the tensor."},
                height={**_SIDE, "description": "Of a crop, in pixels."},
                width={**_SIDE, "description": "Of a crop, in pixels."},
                layout=_choice(Layout, "Order of the axes."),
                channels=_choice(Channels, "Order of the channels."),
                range=_numbers(2, "Low and high: what black and white are."),
                standardization=_choice(Standardization, "By mean and std, or by each image's own.")
                | {"default": "fixed"},
                mean=_numbers(3, "Subtracted from each channel, in the order of channels; one number stands for all."),
                std=_numbers(3, "Divides each channel; positive."),
            ),
            "output": _table(
                "The embedding.",
                ("name", "size", "normalize"),
                name={**_TEXT, "description": "Of the tensor."},
                size={"type": "integer", "minimum": 1, "description": "Numbers in an embedding."},
                normalize={"type": "boolean", "description": "Whether it is L2-normalized before the distance."},
            ),
            "decision": _table(
                'Two crops are "same" when their distance is below the threshold.',
                ("metric", "threshold", "maximum"),
                metric=_choice(Metric, "The distance."),
                threshold={**_NUMBER, "exclusiveMinimum": 0, "description": "Below the maximum."},
                maximum={**_NUMBER, "exclusiveMinimum": 0, "description": "The largest distance that there is."},
            ),
            "alignment": _table(
                "How faces are aligned. Without it, images must be crops of the input's size already.",
                ("template",),
                template={
                    "type": "array",
                    "items": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2},
                    "minItems": 5,
                    "maxItems": 5,
                    "description": "Where eyes, nose and mouth corners lie in the crop, left first: x and y in pixels.",
                },
            ),
            "checkpoint": _table(
                "The original framework's model, for gradients and export; without it gradients come from ONNX.",
                ("file", "format"),
                file={
                    **_TEXT,
                    "description": "Relative to the manifest, and within its folder; or a SavedModel.",
                },
                format=_choice(CheckpointFormat, "What it is."),
                sha256=_HASH,
                network={"type": "object", "description": "Of keras-weights: the network's name and its arguments."},
            ),
            "detector": _table(
                "A second output, of hardened files that have a detector: images that score above are flagged.",
                ("output", "threshold", "false_alarm"),
                output={**_TEXT, "description": "Name of the tensor."},
                threshold={
                    **_NUMBER,
                    "exclusiveMinimum": 0,
                    "description": "The score above which it is.",
                },
                false_alarm={
                    **_NUMBER,
                    "exclusiveMinimum": 0,
                    "exclusiveMaximum": 1,
                    "description": "The share of clean images that the threshold was calibrated to flag.",
                },
            ),
        },
        "required": ["schema", "name", "model", "input", "output", "decision"],
        "additionalProperties": False,
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
