"""Operators on arrays of the translation from ONNX to TensorFlow: arithmetic, reductions, products, shapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx

from toolkit.quiet import import_tensorflow
from toolkit.verifiers.onnx_values import TO_FIRST, TO_LAST, Operator, Single, Value, axes_of, has, integers, widened


def arrays() -> dict[str, Operator]:
    """The operators by name."""
    tf = import_tensorflow()
    return {
        **_elementwise_operators(),
        **_reductions(),
        "Clip": _clip,
        "Cast": _cast,
        "Constant": _constant,
        "Concat": _concat,
        "Flatten": _flatten,
        "Reshape": _reshape,
        "Transpose": _transpose,
        "Squeeze": lambda v, a: Value(tf.squeeze(v[0].first(), axes_of(v, a))),
        "Unsqueeze": _unsqueeze,
        "Shape": _shape,
        "Gather": _gather,
        "Slice": _slice,
        "Split": _split,
        "Expand": _expand,
        "MatMul": lambda v, _: Value(tf.matmul(v[0].first(), v[1].first())),
        "Gemm": _gemm,
        "LpNormalization": _lp_normalization,
        "Softmax": _softmax(tf.nn.softmax),
        "LogSoftmax": _softmax(tf.nn.log_softmax),
    }


def _elementwise_operators() -> dict[str, Operator]:
    tf = import_tensorflow()
    unary = {
        "Relu": tf.nn.relu, "Sigmoid": tf.sigmoid, "Tanh": tf.tanh, "Exp": tf.exp, "Log": tf.math.log, "Sqrt": tf.sqrt,
        "Reciprocal": tf.math.reciprocal, "Abs": tf.abs, "Neg": tf.negative, "Softplus": tf.math.softplus,
        "Softsign": tf.nn.softsign, "Identity": tf.identity, "Erf": tf.math.erf,
        "HardSwish": lambda x: x * tf.clip_by_value(x / 6 + 0.5, 0.0, 1.0),
        "Mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
        # Their gradient is zero or none. An audit must see that, and not take it for an operator that it lacks.
        "Round": tf.round, "Floor": tf.floor, "Ceil": tf.math.ceil, "Sign": tf.sign,
    }  # fmt: skip
    binary = {"Add": tf.add, "Sub": tf.subtract, "Mul": tf.multiply, "Div": _divide, "Pow": _power}
    variadic = {"Max": tf.maximum, "Min": tf.minimum, "Sum": tf.add}
    return {
        **{name: elementwise(f) for name, f in (unary | binary).items()},
        **{name: _folded(f) for name, f in variadic.items()},
        **{name: _with_attributes(f) for name, f in _with_settings().items()},
        "PRelu": elementwise(lambda x, slope: tf.nn.relu(x) - slope * tf.nn.relu(-x)),
        "Dropout": _dropout,
    }


def _with_settings() -> dict[str, Callable[..., Any]]:
    """Elementwise functions with attributes."""
    tf = import_tensorflow()

    def elu(x: Any, alpha: float = 1.0) -> Any:
        return tf.where(x > 0, x, alpha * tf.math.expm1(tf.minimum(x, 0)))

    def celu(x: Any, alpha: float = 1.0) -> Any:
        return tf.maximum(x, 0) + tf.minimum(alpha * tf.math.expm1(tf.minimum(x, 0) / alpha), 0)

    def selu(x: Any, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Any:
        return gamma * elu(x, alpha)

    def hard_sigmoid(x: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
        return tf.clip_by_value(alpha * x + beta, 0.0, 1.0)

    def gelu(x: Any, approximate: bytes = b"none") -> Any:
        return tf.nn.gelu(x, approximate=approximate == b"tanh")

    return {
        "LeakyRelu": lambda x, alpha=0.01: tf.nn.leaky_relu(x, alpha),
        "ThresholdedRelu": lambda x, alpha=1.0: tf.where(x > alpha, x, 0 * x),
        "Elu": elu, "Celu": celu, "Selu": selu, "HardSigmoid": hard_sigmoid, "Gelu": gelu,
    }  # fmt: skip


def _reductions() -> dict[str, Operator]:
    tf = import_tensorflow()
    found = {
        "ReduceSum": tf.reduce_sum, "ReduceMean": tf.reduce_mean, "ReduceMax": tf.reduce_max,
        "ReduceMin": tf.reduce_min, "ReduceProd": tf.reduce_prod,
        "ReduceL1": lambda x, axis, keepdims: tf.reduce_sum(tf.abs(x), axis=axis, keepdims=keepdims),
        "ReduceL2": lambda x, axis, keepdims: tf.norm(x, axis=axis, keepdims=keepdims),
        "ReduceSumSquare": lambda x, axis, keepdims: tf.reduce_sum(tf.square(x), axis=axis, keepdims=keepdims),
        "ReduceLogSumExp": tf.reduce_logsumexp,
    }  # fmt: skip
    return {name: _reduction(f) for name, f in found.items()}


def elementwise(function: Callable[..., Any]) -> Single:
    """An operator that treats all elements alike. Its inputs are broadcast."""

    def run(values: list[Value], _: dict[str, Any]) -> Value:
        if any(v.last for v in values) and all(np.ndim(v.data) <= 4 for v in values):
            return Value(function(*(v.channels_last() for v in values)), last=True)
        return Value(function(*(v.first() for v in values)))

    return run


def _folded(function: Callable[[Any, Any], Any]) -> Single:
    two = elementwise(function)
    return lambda values, attributes: reduce(lambda a, b: two([a, b], attributes), values)


def _with_attributes(function: Callable[..., Any]) -> Operator:
    return lambda v, a: Value(function(v[0].data, **a), v[0].last)


def _divide(a: Any, b: Any) -> Any:
    tf = import_tensorflow()
    if not (tf.as_dtype(a.dtype).is_floating and tf.as_dtype(b.dtype).is_floating):
        return tf.cast(tf.truncatediv(a, b), a.dtype)
    return tf.divide(a, b)


def _power(x: Any, exponent: Any) -> Any:
    tf = import_tensorflow()
    return tf.pow(x, tf.cast(exponent, x.dtype))


def _dropout(values: list[Value], _: dict[str, Any]) -> Value:
    if has(values, 2) and bool(np.any(values[2].data)):
        raise ValueError("dropout in training mode is not supported")
    return values[0]


def _reduction(function: Callable[..., Any]) -> Operator:
    def run(values: list[Value], attributes: dict[str, Any]) -> Value:
        axes = axes_of(values, attributes)
        if axes is None and attributes.get("noop_with_empty_axes", 0):
            return values[0]
        x = values[0].first()
        return Value(function(x, axis=axes, keepdims=bool(attributes.get("keepdims", 1))))

    return run


def _clip(values: list[Value], attributes: dict[str, Any]) -> Value:
    tf, x = import_tensorflow(), values[0].data
    low, high = (values[i].data if has(values, i) else attributes.get(name) for i, name in ((1, "min"), (2, "max")))
    x = x if low is None else tf.maximum(x, tf.cast(low, x.dtype))
    return Value(x if high is None else tf.minimum(x, tf.cast(high, x.dtype)), values[0].last)


def _cast(values: list[Value], attributes: dict[str, Any]) -> Value:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    if dtype.kind not in "fiub":
        raise ValueError(f"a cast to {dtype} is not supported")
    # Everything that is float16 in the file is computed in float32.
    kind = np.dtype(np.float32) if dtype == np.float16 else dtype
    return Value(import_tensorflow().cast(values[0].data, kind), values[0].last)


def _constant(_: list[Value], attributes: dict[str, Any]) -> Value:
    name, value = next(iter(attributes.items()))
    if name == "value":
        return Value(widened(onnx.numpy_helper.to_array(value)))
    if name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"a constant given by {name} is not supported")
    return Value(np.array(value, np.float32 if "float" in name else np.int64))


def _concat(values: list[Value], attributes: dict[str, Any]) -> Value:
    tf = import_tensorflow()
    axis = attributes["axis"]
    if any(v.last for v in values):
        return Value(tf.concat([v.channels_last() for v in values], TO_LAST.index(axis % 4)), last=True)
    return Value(tf.concat([v.data for v in values], axis))


def _flatten(values: list[Value], attributes: dict[str, Any]) -> Value:
    x = values[0].first()
    if attributes.get("axis", 1) != 1:
        raise ValueError("Flatten is supported for axis 1 only")
    return Value(import_tensorflow().reshape(x, (-1, int(np.prod(x.shape[1:])))))


def _reshape(values: list[Value], attributes: dict[str, Any]) -> Value:
    tf, x = import_tensorflow(), values[0].first()
    if attributes.get("allowzero", 0):
        raise ValueError("Reshape with allowzero is not supported")
    if not values[1].constant:
        return Value(tf.reshape(x, values[1].data))
    shape = [x.shape[i] if n == 0 else n for i, n in enumerate(integers(values[1]))]
    # Accept any batch size, also if the first entry copies the batch size, or fixes it to that of the export.
    sides = list(x.shape[1:])
    if not values[0].constant and len(shape) > 1 and None not in sides:
        rest, size = shape[1:], int(np.prod(sides))
        if -1 in rest and shape[0] != -1:
            others = int(np.prod([n for n in rest if n != -1]))
            rest = [size // others if n == -1 else n for n in rest] if others and size % others == 0 else rest
        if -1 not in rest and int(np.prod(rest)) == size:
            shape = [-1, *rest]
    return Value(tf.reshape(x, [-1 if n is None else n for n in shape]))


def _transpose(values: list[Value], attributes: dict[str, Any]) -> Value:
    perm = tuple(attributes.get("perm", range(np.ndim(values[0].data))[::-1]))
    if not values[0].constant:
        if not values[0].last and perm == TO_FIRST:
            return Value(values[0].data, last=True)
        if values[0].last and perm == TO_LAST:
            return Value(values[0].data)
    return Value(import_tensorflow().transpose(values[0].first(), perm))


def _unsqueeze(values: list[Value], attributes: dict[str, Any]) -> Value:
    x = values[0].first()
    axes = axes_of(values, attributes) or []
    rank = np.ndim(x) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = import_tensorflow().expand_dims(x, axis)
    return Value(x)


def _shape(values: list[Value], attributes: dict[str, Any]) -> Value:
    """Sizes that are known are numbers, so that what depends on them alone is constant."""
    tf, x = import_tensorflow(), values[0].first()
    sizes = [size if size is not None else tf.shape(x, tf.int64)[i] for i, size in enumerate(x.shape)]
    part = sizes[attributes.get("start", 0) : attributes.get("end")]
    known = all(isinstance(size, int) for size in part)
    return Value(np.array(part, np.int64) if known else tf.stack([tf.cast(size, tf.int64) for size in part]))


def _gather(values: list[Value], attributes: dict[str, Any]) -> Value:
    tf, x, index = import_tensorflow(), values[0].first(), values[1].first()
    axis = attributes.get("axis", 0) % np.ndim(x)
    size = x.shape[axis] if x.shape[axis] is not None else tf.shape(x, tf.int64)[axis]
    index = tf.cast(index, tf.int64)
    return Value(tf.gather(x, tf.where(index < 0, index + tf.cast(size, tf.int64), index), axis=axis))


def _slice(values: list[Value], attributes: dict[str, Any]) -> Value:
    x = values[0].first()
    if has(values, 1):
        begins, ends = integers(values[1]), integers(values[2])
        axes = integers(values[3]) if has(values, 3) else list(range(len(begins)))
        steps = integers(values[4]) if has(values, 4) else [1] * len(begins)
    else:
        begins, ends = list(attributes["starts"]), list(attributes["ends"])
        axes, steps = list(attributes.get("axes", range(len(begins)))), [1] * len(begins)
    places: list[slice] = [slice(None)] * np.ndim(x)
    for begin, end, axis, step in zip(begins, ends, axes, steps, strict=True):
        if step < 1:
            raise ValueError("a slice that goes backwards is not supported")
        places[axis] = slice(begin, None if end >= np.iinfo(np.int32).max else end, step)
    return Value(x[tuple(places)])


def _split(values: list[Value], attributes: dict[str, Any]) -> list[Value]:
    tf, x = import_tensorflow(), values[0].first()
    axis = attributes.get("axis", 0) % np.ndim(x)
    if has(values, 1) or "split" in attributes:
        sizes = integers(values[1]) if has(values, 1) else list(attributes["split"])
    else:
        count, size = attributes.get("num_outputs", attributes["outputs"]), x.shape[axis]
        each = -(-size // count)
        sizes = [min(each, size - i * each) for i in range(count)]
    return [Value(part) for part in tf.split(x, sizes, axis)]


def _expand(values: list[Value], _: dict[str, Any]) -> Value:
    tf, x = import_tensorflow(), values[0].first()
    shape = tf.broadcast_dynamic_shape(tf.shape(x, tf.int64), tf.cast(values[1].data, tf.int64))
    return Value(tf.broadcast_to(x, shape))


def _softmax(function: Callable[..., Any]) -> Operator:
    def run(values: list[Value], attributes: dict[str, Any]) -> Value:
        if (
            attributes["opset"] < 13
            and attributes.get("axis", 1) % np.ndim(values[0].data) != np.ndim(values[0].data) - 1
        ):
            raise ValueError("a softmax over several axes, as before opset 13, is not supported")
        return Value(function(values[0].first(), axis=attributes.get("axis", -1)))

    return run


def _gemm(values: list[Value], attributes: dict[str, Any]) -> Value:
    tf = import_tensorflow()
    product = tf.matmul(
        values[0].first(),
        values[1].first(),
        transpose_a=bool(attributes.get("transA", 0)),
        transpose_b=bool(attributes.get("transB", 0)),
    )
    product = attributes.get("alpha", 1.0) * product
    return Value(product + attributes.get("beta", 1.0) * values[2].data if has(values, 2) else product)


def _lp_normalization(values: list[Value], attributes: dict[str, Any]) -> Value:
    if attributes.get("p", 2) != 2:
        raise ValueError("LpNormalization is supported for p = 2 only")
    return Value(import_tensorflow().math.l2_normalize(values[0].first(), attributes.get("axis", -1)))
