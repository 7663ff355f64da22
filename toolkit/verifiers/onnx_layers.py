"""Operators on images of the translation from ONNX to TensorFlow: convolutions, poolings, normalizations, sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.quiet import import_tensorflow
from toolkit.verifiers.onnx_values import TO_LAST, Operator, Single, Value, has, integers


def layers() -> dict[str, Operator]:
    """The operators by name."""
    tf = import_tensorflow()
    return {
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "BatchNormalization": _batch_normalization,
        "InstanceNormalization": _instance_normalization,
        "GroupNormalization": _group_normalization,
        "LayerNormalization": _layer_normalization,
        "LRN": _lrn,
        "MaxPool": _pool(tf.nn.max_pool2d, -np.inf),
        "AveragePool": _average_pool,
        "GlobalAveragePool": _globally(tf.reduce_mean),
        "GlobalMaxPool": _globally(tf.reduce_max),
        "Pad": _pad,
        "Resize": _resize,
    }


def _padded(x: Any, pads: list[int], value: float) -> Any:
    """Pad height and width of data with the channels last. `pads` is ONNX's [top, left, bottom, right]."""
    if not any(pads):
        return x
    amounts = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]
    return import_tensorflow().pad(x, amounts, constant_values=value)


def _window(x: Any, attributes: dict[str, Any], kernel: list[int]) -> tuple[list[int], list[int]]:
    """Return the strides and the pads [top, left, bottom, right] of a convolution or pooling.

    With `ceil_mode`, the last window may begin inside of the image and end outside of it: the pads grow by what lacks.
    """
    strides = list(attributes.get("strides", [1, 1]))
    dilations = attributes.get("dilations", [1, 1])
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    pads = list(attributes.get("pads", [0] * 4)) if auto == "NOTSET" else [0] * 4
    for axis in range(2):
        side, reach = x.shape[1 + axis], (kernel[axis] - 1) * dilations[axis] + 1
        if auto.startswith("SAME"):
            total = max((-(-side // strides[axis]) - 1) * strides[axis] + reach - side, 0)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            pads[axis], pads[axis + 2] = before, total - before
        elif attributes.get("ceil_mode", 0):
            beyond = (side + pads[axis] + pads[axis + 2] - reach) % strides[axis]
            last = side + pads[axis] + pads[axis + 2] - reach - beyond + strides[axis]
            if beyond and last < side + pads[axis]:
                pads[axis + 2] += strides[axis] - beyond
    return strides, pads


def _images(x: Any) -> None:
    if np.ndim(x) != 4:
        raise ValueError("only images are supported, with four dimensions")


def _conv(values: list[Value], attributes: dict[str, Any]) -> Value:
    tf = import_tensorflow()
    kernel = values[1].data
    _images(kernel)
    x = values[0].channels_last()
    kernel = (
        np.transpose(kernel, (2, 3, 1, 0)) if isinstance(kernel, np.ndarray) else tf.transpose(kernel, (2, 3, 1, 0))
    )
    group, dilations = attributes.get("group", 1), list(attributes.get("dilations", [1, 1]))
    strides, pads = _window(x, attributes, list(kernel.shape[:2]))
    x = _padded(x, pads, 0.0)
    if group == 1:
        y = tf.nn.conv2d(x, kernel, strides, "VALID", dilations=dilations)
    elif group == x.shape[-1] == kernel.shape[-1] and kernel.shape[2] == 1 and strides[0] == strides[1]:
        turned = tf.transpose(kernel, (0, 1, 3, 2))
        y = tf.nn.depthwise_conv2d(x, turned, [1, *strides, 1], "VALID", dilations=dilations)
    else:
        parts = zip(tf.split(x, group, -1), tf.split(kernel, group, -1), strict=True)
        y = tf.concat([tf.nn.conv2d(a, k, strides, "VALID", dilations=dilations) for a, k in parts], -1)
    return Value(y + values[2].data if has(values, 2) else y, last=True)


def _conv_transpose(values: list[Value], attributes: dict[str, Any]) -> Value:
    """A transposed convolution is the gradient of a convolution without pads; pads are cut off its result."""
    tf = import_tensorflow()
    kernel = values[1].data
    _images(kernel)
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in attributes:
        raise ValueError("a transposed convolution is supported with explicit pads only")
    x = values[0].channels_last()
    group, dilations = attributes.get("group", 1), list(attributes.get("dilations", [1, 1]))
    if any(d != 1 for d in dilations):
        raise ValueError("a transposed convolution with dilations is not supported")
    strides, pads = list(attributes.get("strides", [1, 1])), list(attributes.get("pads", [0] * 4))
    more = list(attributes.get("output_padding", [0, 0]))
    whole = [(x.shape[1 + i] - 1) * strides[i] + kernel.shape[2 + i] for i in range(2)]
    kernel = tf.transpose(tf.constant(kernel) if isinstance(kernel, np.ndarray) else kernel, (2, 3, 1, 0))
    parts = zip(tf.split(x, group, -1), tf.split(kernel, group, -1), strict=True)
    y = tf.concat(
        [tf.nn.conv2d_transpose(a, k, [tf.shape(x)[0], *whole, k.shape[2]], strides, "VALID") for a, k in parts], -1
    )
    y = _padded(y, [0, 0, *more], 0.0)
    y = y[:, pads[0] : y.shape[1] - pads[2], pads[1] : y.shape[2] - pads[3]]
    return Value(y + values[2].data if has(values, 2) else y, last=True)


def _batch_normalization(values: list[Value], attributes: dict[str, Any]) -> Value:
    if attributes.get("training_mode", 0):
        raise ValueError("a normalization in training mode is not supported")
    scale, bias, mean, variance = (v.data for v in values[1:5])
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    shift = bias - mean * factor
    rank = np.ndim(values[0].data)
    if rank == 4:
        return Value(values[0].channels_last() * factor + shift, last=True)
    shape = (1, -1) + (1,) * (rank - 2)
    return Value(values[0].data * factor.reshape(shape) + shift.reshape(shape))


def _normalized(x: Any, axes: list[int], epsilon: float) -> Any:
    tf = import_tensorflow()
    mean = tf.reduce_mean(x, axes, keepdims=True)
    return (x - mean) * tf.math.rsqrt(tf.reduce_mean(tf.square(x - mean), axes, keepdims=True) + epsilon)


def _along_channels(constant: Any, rank: int) -> Any:
    return import_tensorflow().reshape(constant, (1, -1) + (1,) * (rank - 2))


def _instance_normalization(values: list[Value], attributes: dict[str, Any]) -> Value:
    x = values[0].first()
    rank = len(x.shape)
    scale, bias = (_along_channels(v.data, rank) for v in values[1:3])
    return Value(_normalized(x, list(range(2, rank)), attributes.get("epsilon", 1e-5)) * scale + bias)


def _group_normalization(values: list[Value], attributes: dict[str, Any]) -> Value:
    tf, x, groups = import_tensorflow(), values[0].first(), attributes["num_groups"]
    rank, channels = len(x.shape), x.shape[1]
    parted = tf.reshape(x, [-1, groups, channels // groups, *x.shape[2:]])
    y = tf.reshape(_normalized(parted, list(range(2, rank + 1)), attributes.get("epsilon", 1e-5)), [-1, *x.shape[1:]])
    scale, bias = (
        v.data if np.shape(v.data)[0] == channels else np.repeat(v.data, channels // groups) for v in values[1:3]
    )
    return Value(y * _along_channels(scale, rank) + _along_channels(bias, rank))


def _layer_normalization(values: list[Value], attributes: dict[str, Any]) -> Value:
    x = values[0].first()
    rank = len(x.shape)
    axes = list(range(attributes.get("axis", -1) % rank, rank))
    y = _normalized(x, axes, attributes.get("epsilon", 1e-5)) * values[1].data
    return Value(y + values[2].data if has(values, 2) else y)


def _lrn(values: list[Value], attributes: dict[str, Any]) -> Value:
    size = attributes["size"]
    if size % 2 == 0:
        raise ValueError("LRN is supported for odd sizes only")
    return Value(
        import_tensorflow().nn.local_response_normalization(
            values[0].channels_last(), size // 2, attributes.get("bias", 1.0),
            attributes.get("alpha", 1e-4) / size, attributes.get("beta", 0.75),
        ), last=True,
    )  # fmt: skip


def _pool(function: Callable[..., Any], fill: float) -> Single:
    def run(values: list[Value], attributes: dict[str, Any]) -> Value:
        kernel, dilations = list(attributes["kernel_shape"]), list(attributes.get("dilations", [1, 1]))
        if len(kernel) != 2:
            raise ValueError("only images are supported, with four dimensions")
        x = values[0].channels_last()
        strides, pads = _window(x, attributes, kernel)
        if dilations != [1, 1]:
            if strides != [1, 1]:
                raise ValueError("pooling with dilations and strides is not supported")
            kind = "MAX" if fill else "AVG"
            pooled = import_tensorflow().nn.pool(
                _padded(x, pads, fill), kernel, kind, padding="VALID", dilations=dilations
            )
            return Value(pooled, last=True)
        return Value(function(_padded(x, pads, fill), kernel, strides, "VALID"), last=True)

    return run


def _average_pool(values: list[Value], attributes: dict[str, Any]) -> Value:
    """Divide by the number of pixels in a window: of the image, and of explicit pads if they count."""
    tf = import_tensorflow()
    pool = _pool(tf.nn.avg_pool2d, 0.0)
    counting = bool(attributes.get("count_include_pad", 0))
    x = values[0].channels_last()
    pads = list(attributes.get("pads", [0] * 4))
    if counting and not attributes.get("ceil_mode", 0):
        return pool(values, attributes)
    ones = tf.ones_like(x[:1, :, :, :1])
    if counting:  # explicit pads count; what ceil_mode adds does not
        _, whole = _window(x, attributes, list(attributes["kernel_shape"]))
        x, ones = _padded(x, pads, 0.0), _padded(ones, pads, 1.0)
        attributes = {**attributes, "pads": [a - b for a, b in zip(whole, pads, strict=True)], "ceil_mode": 0}
    sums, share = (pool([Value(v, last=True)], attributes) for v in (x, ones))
    return Value(sums.data / share.data, last=True)


def _globally(reduce: Callable[..., Any]) -> Operator:
    def run(values: list[Value], _: dict[str, Any]) -> Value:
        x = values[0]
        if np.ndim(x.data) == 4:
            return Value(reduce(x.channels_last(), (1, 2), keepdims=True), last=True)
        return Value(reduce(x.first(), list(range(2, np.ndim(x.data))), keepdims=True))

    return run


def _pad(values: list[Value], attributes: dict[str, Any]) -> Value:
    tf = import_tensorflow()
    mode = attributes.get("mode", b"constant").decode()
    if mode not in ("constant", "reflect") or has(values, 3):
        raise ValueError(f"padding with mode {mode}, or of chosen axes, is not supported")
    pads = integers(values[1]) if has(values, 1) else list(attributes["pads"])
    fill = float(values[2].data) if has(values, 2) else attributes.get("value", 0.0)
    amounts = [[pads[i], pads[i + len(pads) // 2]] for i in range(len(pads) // 2)]
    if min(pads) < 0:
        raise ValueError("negative pads are not supported")
    x, last = (values[0].channels_last(), True) if len(amounts) == 4 else (values[0].data, False)
    if last:
        amounts = [amounts[i] for i in TO_LAST]
    return Value(tf.pad(x, amounts, mode.upper(), **({"constant_values": fill} if mode == "constant" else {})), last)


def _resize(values: list[Value], attributes: dict[str, Any]) -> Value:
    """Interpolate along height and then width: each is a product with a matrix, whose gradient is exact."""
    tf = import_tensorflow()
    _images(values[0].data)
    mode = attributes.get("mode", b"nearest").decode()
    where = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    if attributes.get("antialias", 0) or mode not in ("nearest", "linear") or "axes" in attributes:
        raise ValueError(f"resizing by {mode}, of chosen axes or with antialias is not supported")
    if where not in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"):
        raise ValueError(f"resizing with {where} is not supported")
    if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise ValueError("resizing that keeps the aspect ratio is not supported")
    x = values[0].channels_last()
    sides = list(x.shape[1:3])
    if has(values, 3):
        new = integers(values[3])[2:]
        scales = [n / side for n, side in zip(new, sides, strict=True)]
    else:
        scales = [float(scale) for scale in values[2].data][2:]
        new = [int(np.floor(side * scale)) for side, scale in zip(sides, scales, strict=True)]
    if where == "align_corners" and any(n != side * scale for n, side, scale in zip(new, sides, scales, strict=True)):
        raise ValueError("resizing with align_corners to a side that is not whole is not supported")
    nearest = attributes.get("nearest_mode", b"round_prefer_floor").decode() if mode == "nearest" else ""
    rows, columns = (
        _interpolation(side, n, scale, where, nearest) for side, n, scale in zip(sides, new, scales, strict=True)
    )
    return Value(tf.einsum("ph,qw,nhwc->npqc", rows, columns, x), last=True)


def _interpolation(side: int, new: int, scale: float, where: str, nearest: str) -> Any:
    """The matrix (new, side) of one axis. `nearest` is the mode of rounding; empty for linear interpolation."""
    at = np.arange(new, dtype=np.float64)
    if where == "asymmetric":
        at = at / scale
    elif where == "align_corners":
        at = at * (side - 1) / (new - 1) if new > 1 else at * 0
    elif where == "pytorch_half_pixel" and new == 1:
        at = at * 0
    else:
        at = (at + 0.5) / scale - 0.5
    matrix = np.zeros((new, side), np.float32)
    index = np.arange(new)
    if nearest:
        rounded = {
            "floor": np.floor(at), "ceil": np.ceil(at),
            "round_prefer_floor": np.ceil(at - 0.5), "round_prefer_ceil": np.floor(at + 0.5),
        }[nearest]  # fmt: skip
        matrix[index, np.clip(rounded, 0, side - 1).astype(int)] = 1
        return matrix
    at = np.clip(at, 0, side - 1)
    low = np.minimum(np.floor(at).astype(int), max(side - 2, 0))
    np.add.at(matrix, (index, low), 1 - (at - low))
    np.add.at(matrix, (index, np.minimum(low + 1, side - 1)), at - low)
    return matrix
