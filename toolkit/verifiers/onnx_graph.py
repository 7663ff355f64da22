"""ONNX files as differentiable TensorFlow functions, for gradients without the original framework's model.

This module translates the operators that exported face verifiers use. Other operators are rejected by name. On a CPU,
TensorFlow's convolutions need the channels last. 4-D values are therefore kept with the channels last from the first
convolution on. They are transposed back only for operators that depend on the order of the axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.helper import get_attribute_value

from toolkit.errors import InputError, refusing
from toolkit.quiet import import_tensorflow
from toolkit.verifiers.onnx_file import parse_onnx, read_onnx

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class _Value:
    """A constant (NumPy array) or a tensor. `last` marks a 4-D tensor that is kept with the channels last."""

    data: Any
    last: bool = False

    @property
    def constant(self) -> bool:
        return isinstance(self.data, np.ndarray)

    def first(self) -> Any:
        """Return the data in ONNX's layout, with the channels first."""
        return import_tensorflow().transpose(self.data, _TO_FIRST) if self.last else self.data

    def channels_last(self) -> Any:
        """Return the data in a layout that broadcasts with 4-D data with the channels last."""
        if self.last or np.ndim(self.data) == 0:
            return self.data
        if self.constant:
            shape = (1,) * (4 - self.data.ndim) + self.data.shape
            return self.data.reshape(shape).transpose(_TO_LAST)
        return import_tensorflow().transpose(self.data, _TO_LAST)


_Operator = Callable[[list[_Value], dict[str, Any]], _Value]


def load_onnx(path: Path) -> Callable[[Any], Any]:
    """Read an ONNX verifier.

    Args:
        path: an ONNX file with one input.

    Returns:
        A function from the input tensor to the first output. It can be called inside a `tf.function`.

    Raises:
        InputError: the file is not an ONNX file, has several inputs, or an operator is not supported.
        UnavailableError: TensorFlow is not installed.
    """
    operators = _operators()
    graph = parse_onnx(read_onnx(path).content, path).graph
    with refusing(f"{path}: its constants cannot be read"):
        constants = {t.name: _Value(onnx.numpy_helper.to_array(t)) for t in graph.initializer}
    inputs = [i.name for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        raise InputError(f"{path}: has {len(inputs)} inputs ({', '.join(inputs)}); a verifier must have one")
    if not graph.output:
        raise InputError(f"{path}: has no output; a verifier must have one")
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in operators:
            raise InputError(
                f"{path}: node {node.name!r}: the operator {node.op_type} has no gradient here; "
                "name a checkpoint in the manifest"
            )
    output = graph.output[0].name

    def run(x: Any) -> Any:
        values: dict[str, _Value] = {**constants, inputs[0]: _Value(x), "": _Value(np.empty(0))}
        for node in graph.node:
            with refusing(f"{path}: node {node.name!r} ({node.op_type}) cannot be run"):
                attributes = {a.name: get_attribute_value(a) for a in node.attribute}
                result = operators[node.op_type]([values[name] for name in node.input], attributes)
                values[node.output[0]] = result
        if output not in values:
            raise InputError(f"{path}: no node computes the output {output!r}")
        return values[output].first()

    return run


def _operators() -> dict[str, _Operator]:
    tf = import_tensorflow()
    unary = {
        "Relu": tf.nn.relu, "Sigmoid": tf.sigmoid, "Tanh": tf.tanh, "Exp": tf.exp, "Log": tf.math.log, "Sqrt": tf.sqrt,
        "Reciprocal": tf.math.reciprocal, "Abs": tf.abs, "Neg": tf.negative, "Softplus": tf.math.softplus,
        "Identity": tf.identity, "Dropout": tf.identity, "Erf": tf.math.erf,
        # Their gradient is zero or none. An audit must see that, and not take it for an operator that it lacks.
        "Round": tf.round, "Floor": tf.floor, "Ceil": tf.math.ceil, "Sign": tf.sign,
    }  # fmt: skip
    binary = {
        "Add": tf.add, "Sub": tf.subtract, "Mul": tf.multiply, "Div": tf.divide, "Pow": tf.pow,
        "Max": tf.maximum, "Min": tf.minimum,
    }  # fmt: skip
    reductions = {
        "ReduceSum": tf.reduce_sum, "ReduceMean": tf.reduce_mean, "ReduceMax": tf.reduce_max,
        "ReduceL2": lambda x, axis, keepdims: tf.norm(x, axis=axis, keepdims=keepdims),
        "ReduceSumSquare": lambda x, axis, keepdims: tf.reduce_sum(tf.square(x), axis=axis, keepdims=keepdims),
    }  # fmt: skip
    return {
        **{name: _elementwise(f) for name, f in unary.items()},
        **{name: _elementwise(f) for name, f in binary.items()},
        **{name: _reduction(f) for name, f in reductions.items()},
        "LeakyRelu": lambda v, a: _Value(tf.nn.leaky_relu(v[0].data, a.get("alpha", 0.01)), v[0].last),
        "PRelu": _elementwise(lambda x, slope: tf.nn.relu(x) - slope * tf.nn.relu(-x)),
        "Clip": _clip,
        "Cast": _cast,
        "Constant": lambda _, a: _Value(onnx.numpy_helper.to_array(a["value"])),
        "Conv": _conv,
        "BatchNormalization": _batch_normalization,
        "MaxPool": _pool(tf.nn.max_pool2d, -np.inf),
        "AveragePool": _average_pool,
        "GlobalAveragePool": _global_average_pool,
        "Pad": _pad,
        "Concat": _concat,
        "Flatten": _flatten,
        "Reshape": _reshape,
        "Transpose": _transpose,
        "Squeeze": lambda v, a: _Value(tf.squeeze(v[0].first(), _axes(v, a))),
        "Unsqueeze": _unsqueeze,
        "MatMul": lambda v, _: _Value(tf.matmul(v[0].first(), v[1].first())),
        "Gemm": _gemm,
        "LpNormalization": _lp_normalization,
    }


def _elementwise(function: Callable[..., Any]) -> _Operator:
    def run(values: list[_Value], _: dict[str, Any]) -> _Value:
        if any(v.last for v in values):
            return _Value(function(*(v.channels_last() for v in values)), last=True)
        return _Value(function(*(v.data for v in values)))

    return run


def _axes(values: list[_Value], attributes: dict[str, Any]) -> list[int] | None:
    """Return the axes, which are an attribute in old opsets and an input in new ones; None if there are none."""
    if len(values) > 1 and values[1].data.size:
        return [int(axis) for axis in values[1].data]
    return list(attributes["axes"]) if "axes" in attributes else None


def _reduction(function: Callable[..., Any]) -> _Operator:
    def run(values: list[_Value], attributes: dict[str, Any]) -> _Value:
        return _Value(
            function(values[0].first(), axis=_axes(values, attributes), keepdims=bool(attributes.get("keepdims", 1)))
        )

    return run


def _clip(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    tf = import_tensorflow()
    limits = [
        float(values[i].data) if len(values) > i and values[i].data.size else attributes.get(name, default)
        for i, name, default in ((1, "min", -np.inf), (2, "max", np.inf))
    ]
    return _Value(tf.clip_by_value(values[0].data, *limits), values[0].last)


def _cast(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    if values[0].constant:
        return _Value(values[0].data.astype(dtype))
    return _Value(import_tensorflow().cast(values[0].data, dtype), values[0].last)


def _padded(x: Any, pads: list[int], value: float) -> Any:
    """Pad height and width of data with the channels last. `pads` is ONNX's [top, left, bottom, right]."""
    if not any(pads):
        return x
    amounts = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]
    return import_tensorflow().pad(x, amounts, constant_values=value)


def _window(x: Any, attributes: dict[str, Any], kernel: list[int]) -> tuple[list[int], list[int]]:
    """Return the strides and the pads [top, left, bottom, right] of a convolution or pooling."""
    strides = list(attributes.get("strides", [1, 1]))
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        return strides, list(attributes.get("pads", [0] * 4)) if auto == "NOTSET" else [0] * 4
    dilations = attributes.get("dilations", [1, 1])
    pads = [0] * 4
    for axis in range(2):
        side, reach = x.shape[1 + axis], (kernel[axis] - 1) * dilations[axis] + 1
        total = max((-(-side // strides[axis]) - 1) * strides[axis] + reach - side, 0)
        before = total // 2 if auto == "SAME_UPPER" else total - total // 2
        pads[axis], pads[axis + 2] = before, total - before
    return strides, pads


def _conv(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    tf = import_tensorflow()
    x, kernel = values[0].channels_last(), values[1].data
    if np.ndim(kernel) != 4:
        raise ValueError("only 2-D convolutions are supported")
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
    return _Value(y if len(values) < 3 or not np.size(values[2].data) else y + values[2].data, last=True)


def _batch_normalization(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    scale, bias, mean, variance = (v.data for v in values[1:5])
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    if values[0].data.shape.rank == 4:
        return _Value(values[0].channels_last() * factor + (bias - mean * factor), last=True)
    return _Value(values[0].data * factor + (bias - mean * factor))


def _pool(function: Callable[..., Any], fill: float) -> _Operator:
    def run(values: list[_Value], attributes: dict[str, Any]) -> _Value:
        if attributes.get("ceil_mode", 0) or any(d != 1 for d in attributes.get("dilations", [1, 1])):
            raise ValueError("pooling with ceil_mode or dilations is not supported")
        x, kernel = values[0].channels_last(), list(attributes["kernel_shape"])
        strides, pads = _window(x, attributes, kernel)
        return _Value(function(_padded(x, pads, fill), kernel, strides, "VALID"), last=True)

    return run


def _global_average_pool(values: list[_Value], _: dict[str, Any]) -> _Value:
    return _Value(import_tensorflow().reduce_mean(values[0].channels_last(), (1, 2), keepdims=True), last=True)


def _average_pool(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    tf = import_tensorflow()
    pool = _pool(tf.nn.avg_pool2d, 0.0)
    result = pool(values, attributes)
    padded = any(attributes.get("pads", [0])) or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if not padded or attributes.get("count_include_pad", 0):
        return result
    ones = _Value(tf.ones_like(values[0].channels_last()[:1, :, :, :1]), last=True)
    return _Value(result.data / pool([ones], attributes).data, last=True)


def _pad(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    tf = import_tensorflow()
    mode = attributes.get("mode", b"constant").decode()
    if mode not in ("constant", "reflect"):
        raise ValueError(f"padding with mode {mode} is not supported")
    pads = [int(p) for p in (values[1].data if len(values) > 1 else attributes["pads"])]
    fill = float(values[2].data) if len(values) > 2 and values[2].data.size else attributes.get("value", 0.0)
    amounts = [[pads[i], pads[i + len(pads) // 2]] for i in range(len(pads) // 2)]
    x, last = (values[0].channels_last(), True) if len(amounts) == 4 else (values[0].data, False)
    if last:
        amounts = [amounts[i] for i in _TO_LAST]
    return _Value(tf.pad(x, amounts, mode.upper(), **({"constant_values": fill} if mode == "constant" else {})), last)


def _concat(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    tf = import_tensorflow()
    axis = attributes["axis"]
    if any(v.last for v in values):
        return _Value(tf.concat([v.channels_last() for v in values], _TO_LAST.index(axis % 4)), last=True)
    if all(v.constant for v in values):
        return _Value(np.concatenate([v.data for v in values], axis))
    return _Value(tf.concat([v.data for v in values], axis))


def _flatten(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    x = values[0].first()
    if attributes.get("axis", 1) != 1:
        raise ValueError("Flatten is supported for axis 1 only")
    return _Value(import_tensorflow().reshape(x, (-1, int(np.prod(x.shape[1:])))))


def _reshape(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    if attributes.get("allowzero", 0) or not values[1].constant:
        raise ValueError("Reshape is supported for a constant shape without allowzero only")
    x = values[0].first()
    wanted = [int(n) for n in values[1].data]
    # Accept any batch size, also if the first entry copies the batch size or fixes it to 1.
    shape = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if not values[0].constant and -1 not in shape[1:]:
        shape[0] = -1
    return _Value(import_tensorflow().reshape(x, [-1 if n is None else n for n in shape]))


def _transpose(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    tf = import_tensorflow()
    perm = tuple(attributes["perm"])
    if values[0].constant:
        return _Value(values[0].data.transpose(perm))
    if not values[0].last and perm == _TO_FIRST:
        return _Value(values[0].data, last=True)
    if values[0].last and perm == _TO_LAST:
        return _Value(values[0].data)
    return _Value(tf.transpose(values[0].first(), perm))


def _unsqueeze(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    x = values[0].first()
    for axis in sorted(_axes(values, attributes) or []):
        x = np.expand_dims(x, axis) if isinstance(x, np.ndarray) else import_tensorflow().expand_dims(x, axis)
    return _Value(x)


def _gemm(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    tf = import_tensorflow()
    product = tf.matmul(
        values[0].first(),
        values[1].first(),
        transpose_a=bool(attributes.get("transA", 0)),
        transpose_b=bool(attributes.get("transB", 0)),
    )
    product = attributes.get("alpha", 1.0) * product
    return _Value(product if len(values) < 3 else product + attributes.get("beta", 1.0) * values[2].data)


def _lp_normalization(values: list[_Value], attributes: dict[str, Any]) -> _Value:
    if attributes.get("p", 2) != 2:
        raise ValueError("LpNormalization is supported for p = 2 only")
    return _Value(import_tensorflow().math.l2_normalize(values[0].first(), attributes.get("axis", -1)))
