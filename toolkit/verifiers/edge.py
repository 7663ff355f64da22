"""The verifier's edge: the only place where a manifest's layout and value range are applied to crops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.verifiers.manifest import Input


def model_input(crops: NDArray[np.float32], spec: Input) -> NDArray[np.float32]:
    """Turn crops (N, H, W, 3), RGB in [0, 1], into the tensor that the model takes (see `Input`)."""
    x = crops[..., ::-1] if spec.channels == "BGR" else crops
    if spec.standardization == "per-image":
        x = spec.low + x * np.float32(spec.high - spec.low)
        mean = x.mean(axis=(1, 2, 3), keepdims=True)
        std = x.std(axis=(1, 2, 3), keepdims=True)
        x = (x - mean) / np.maximum(std, 1.0 / np.sqrt(x[0].size))
    else:
        std, mean = np.array(spec.std), np.array(spec.mean)
        scale, offset = (spec.high - spec.low) / std, (spec.low - mean) / std
        # One long row for each line of pixels: NumPy is slow where it has to begin anew after every three channels.
        rows = x.reshape(*x.shape[:2], -1) * _along(scale, x.shape[2])
        rows += _along(offset, x.shape[2])
        x = rows.reshape(x.shape)
    if spec.layout == "NCHW":
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x, np.float32)


def _along(channels: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    """Values of three channels for a line of pixels; a single one where they are equal, which is faster."""
    equal = bool((channels == channels[0]).all())
    return (channels[:1] if equal else np.tile(channels, width)).astype(np.float32)


def unit_affine(spec: Input) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Per-channel (scale, offset) with ``crop in [0, 1] = tensor * scale + offset``; fixed standardization only."""
    span = spec.high - spec.low
    scale = np.array(spec.std, np.float32) / np.float32(span)
    offset = (np.array(spec.mean, np.float32) - np.float32(spec.low)) / np.float32(span)
    return scale, offset
