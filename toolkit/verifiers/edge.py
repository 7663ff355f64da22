"""Conversion from crops to input tensors: the only NumPy code that applies a manifest's layout and value range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from toolkit.errors import InputError
from toolkit.verifiers.manifest import Input

# Types of an input tensor, in ONNX Runtime's words.
FLOAT, HALF, BYTES = "tensor(float)", "tensor(float16)", "tensor(uint8)"
INPUTS: dict[str, type[np.generic]] = {FLOAT: np.float32, HALF: np.float16, BYTES: np.uint8}
# The same types in ONNX files.
KIND_OF = {TensorProto.FLOAT: FLOAT, TensorProto.FLOAT16: HALF, TensorProto.UINT8: BYTES}


def model_input(crops: NDArray[np.float32], spec: Input, kind: str = FLOAT) -> NDArray[Any]:
    """Convert crops (N, H, W, 3), RGB in [0, 1], to the model's input tensor. See `Input`.

    Args:
        crops: the crops.
        spec: the format of the tensor.
        kind: the type of the tensor, one of `INPUTS`. Bytes are rounded as `pixels.to_8bit` rounds, so that an 8-bit
            crop arrives as it is.
    """
    x = _real_input(crops, spec)
    if kind == BYTES:
        x = np.clip(np.rint(x), 0, 255)
    return x.astype(INPUTS[kind], copy=False)


def fits_bytes(spec: Input) -> bool:
    """Return whether the values of the tensor are the 8-bit levels of the pixels, which alone fit into bytes."""
    plain = spec.standardization == "fixed" and set(spec.mean) == {0.0} and set(spec.std) == {1.0}
    return plain and (spec.low, spec.high) == (0.0, 255.0)


def check_crops(crops: NDArray[np.float32], height: int, width: int, name: str) -> None:
    """Check the shape of crops for the verifier `name`.

    Raises:
        InputError: it is not (N, height, width, 3).
    """
    if crops.ndim != 4 or crops.shape[1:] != (height, width, 3):
        raise InputError(f"crops of shape {crops.shape} do not fit {name}, which takes (N, {height}, {width}, 3)")


def of_unit_length(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale embeddings (N, D) to unit L2 norm, in float32. Rows of zeros stay zero."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, np.float32(1e-12)), np.float32)


def embedding_rows(value: NDArray[Any], batch: int, size: int) -> NDArray[Any] | None:
    """Return an output as rows (batch, size); None if it has another shape.

    Axes of length 1 do not count: (N, D, 1, 1) is taken, and (D,) for one crop.
    """
    given, wanted = ([n for n in shape if n != 1] for shape in (value.shape, (batch, size)))
    return value.reshape(batch, size) if given == wanted else None


def _real_input(crops: NDArray[np.float32], spec: Input) -> NDArray[np.float32]:
    x = crops[..., ::-1] if spec.channels == "BGR" else crops
    if spec.standardization == "per-image":
        x = spec.low + x * np.float32(spec.high - spec.low)
        mean = x.mean(axis=(1, 2, 3), keepdims=True)
        std = x.std(axis=(1, 2, 3), keepdims=True)
        x = (x - mean) / np.maximum(std, 1.0 / np.sqrt(x[0].size))
    else:
        std, mean = np.array(spec.std), np.array(spec.mean)
        scale, offset = (spec.high - spec.low) / std, (spec.low - mean) / std
        # Treat each line of pixels as one long row, because NumPy is slow with an inner axis of only three channels.
        rows = x.reshape(*x.shape[:2], -1) * _along(scale, x.shape[2])
        rows += _along(offset, x.shape[2])
        x = rows.reshape(x.shape)
    if spec.layout == "NCHW":
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x, np.float32)


def batches(crops: NDArray[np.float32], size: int, fixed: int | None) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield crops (N, H, W, 3) in batches, and how many of each batch are crops.

    Args:
        crops: the crops.
        size: the number of crops in each call, unless the model fixes it.
        fixed: the batch size that the model fixes, or None. The last batch is filled up with copies of its last crop.
    """
    step = fixed or size
    for start in range(0, len(crops), step):
        batch = crops[start : start + step]
        missing = (fixed or len(batch)) - len(batch)
        yield (np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch), len(batch)


def _along(channels: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    """Repeat the values of three channels for a line of pixels. Equal values give a single one, which is faster."""
    equal = bool((channels == channels[0]).all())
    return (channels[:1] if equal else np.tile(channels, width)).astype(np.float32)


def unit_affine(spec: Input) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and offset per channel, with ``crop = tensor * scale + offset`` for a crop in [0, 1].

    This is defined for fixed standardization only.
    """
    span = spec.high - spec.low
    scale = np.array(spec.std, np.float32) / np.float32(span)
    offset = (np.array(spec.mean, np.float32) - np.float32(spec.low)) / np.float32(span)
    return scale, offset
