"""ONNX's test cases of single operators, and what the translation makes of one."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper
from onnx.backend.test.case import node

from toolkit.errors import SixpixelsError
from toolkit.verifiers.onnx_graph import translate

EQUAL, REFUSED, WRONG = "equal", "refused", "wrong"
# The size of a step of central differences, and the largest number of inputs whose gradient is tried.
_STEP, _MOST = 1e-2, 400
# Their gradient is zero or none, or jumps at the values of ONNX's cases.
_WITHOUT_GRADIENT = {"Round", "Floor", "Ceil", "Sign", "Shape", "Cast", "Constant"}


def cases(operator: str) -> list[Any]:
    """The cases of one operator alone, whose inputs and outputs are arrays.

    A case is made when its operator's module is imported. Making those of all operators takes ten seconds.
    """
    for module in pkgutil.iter_modules(node.__path__):
        if module.name.replace("_", "") == operator.lower():
            importlib.import_module(f"{node.__name__}.{module.name}")
    return [
        case for case in node._NodeTestCases
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type == operator and case.data_sets
        and all(isinstance(value, np.ndarray) for value in (*case.data_sets[0][0], *case.data_sets[0][1]))
    ]  # fmt: skip


def judge(case: Any, rng: np.random.Generator) -> tuple[str, str]:
    """What the translation makes of a case, and why it is wrong."""
    inputs, outputs = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for name, value in list(zip(names, inputs, strict=True))[1:]:
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    x = inputs[0] if inputs else np.zeros(1, np.float32)
    if not inputs:
        model.graph.input.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1]))
    try:
        run = translate(model, Path(case.name), model.graph.output[0].name)
        found = np.asarray(run(tf.constant(x)))
    except SixpixelsError:
        return REFUSED, ""
    if found.shape != outputs[0].shape or not np.allclose(found, outputs[0], 1e-3, 1e-5, equal_nan=True):
        return WRONG, f"shape {found.shape} of {outputs[0].shape}, or other values"
    if x.dtype != np.float32 or case.model.graph.node[0].op_type in _WITHOUT_GRADIENT or x.size > _MOST:
        return EQUAL, ""
    # ONNX's cases like round numbers, where functions have kinks.
    return _judge_gradient(run, (x + rng.normal(0, 0.03, x.shape)).astype(np.float32), rng)


def _judge_gradient(run: Any, x: np.ndarray, rng: np.random.Generator) -> tuple[str, str]:
    """Compare the gradient along a random direction with a central difference, at a place without a kink."""
    weights = rng.normal(size=np.asarray(run(tf.constant(x))).shape)
    direction = rng.normal(size=x.shape).astype(np.float32)

    def value(step: float) -> float:
        return float((np.asarray(run(tf.constant(x + np.float32(step) * direction)), np.float64) * weights).sum())

    variable = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        total = tf.reduce_sum(run(variable) * weights.astype(np.float32))
    gradient = tape.gradient(total, variable)
    if gradient is None:
        return WRONG, "no gradient"
    slope = float((np.asarray(tf.convert_to_tensor(gradient), np.float64) * direction).sum())
    coarse, fine = ((value(step) - value(-step)) / (2 * step) for step in (_STEP, _STEP / 4))
    # Where differences do not converge, there is a kink, or values are not finite.
    if not np.isfinite([slope, coarse, fine]).all() or abs(coarse - fine) > 0.02 * max(abs(fine), 1):
        return EQUAL, ""
    if abs(slope - fine) > 0.05 * max(abs(fine), 1):
        return WRONG, f"slope {slope:.4f}, but differences give {fine:.4f}"
    return EQUAL, ""
