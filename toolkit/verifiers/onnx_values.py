"""Values and operators of the translation from ONNX to TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.quiet import import_tensorflow

# On a CPU, TensorFlow's convolutions need the channels last. 4-D values are kept so from the first convolution on, and
# are transposed back only for operators that depend on the order of the axes.
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class Value:
    """A constant (NumPy array) or a tensor. `last` marks a 4-D tensor that is kept with the channels last."""

    data: Any
    last: bool = False

    @property
    def constant(self) -> bool:
        """Whether the data are known before the model runs."""
        return isinstance(self.data, np.ndarray)

    def first(self) -> Any:
        """Return the data in ONNX's layout, with the channels first."""
        return import_tensorflow().transpose(self.data, TO_FIRST) if self.last else self.data

    def channels_last(self) -> Any:
        """Return the data in a layout that broadcasts with 4-D data with the channels last."""
        rank = np.ndim(self.data)
        if self.last or rank == 0:
            return self.data
        if self.constant:
            return self.data.reshape((1,) * (4 - rank) + self.data.shape).transpose(TO_LAST)
        tf, data = import_tensorflow(), self.data
        for _ in range(4 - rank):
            data = tf.expand_dims(data, 0)
        return tf.transpose(data, TO_LAST)


# What an optional input that is left out is.
MISSING = Value(np.empty(0))
# An operator takes its inputs and attributes. Only a few have several outputs.
Single = Callable[[list[Value], dict[str, Any]], Value]
Operator = Callable[[list[Value], dict[str, Any]], "Value | list[Value]"]


def widened(array: Any) -> Any:
    """Return an array of float16 as float32, and any other as it is."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def has(values: list[Value], i: int) -> bool:
    """Return whether an operator has its i-th input."""
    return len(values) > i and values[i] is not MISSING


def integers(value: Value) -> list[int]:
    """Return the numbers of a constant.

    Raises:
        ValueError: it is not constant.
    """
    if not value.constant:
        raise ValueError("an input that must be constant is computed")
    return [int(number) for number in np.ravel(value.data)]


def axes_of(values: list[Value], attributes: dict[str, Any]) -> list[int] | None:
    """Return the axes, which are an attribute in old opsets and an input in new ones; None if there are none."""
    if has(values, 1):
        return integers(values[1]) or None
    return list(attributes["axes"]) if "axes" in attributes else None
