"""The median filter (Xu et al. 2018, "Feature Squeezing", local smoothing)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.windows import onnx_window, tensorflow_window
from toolkit.parameters import check, number

_T = TypeVar("_T")


@dataclass(frozen=True)
class Median:
    """Replaces each pixel by the median of the `size` x `size` square around it.

    The median is computed for each channel separately. `size` is 3 or 5. The border repeats the outermost pixel,
    because OpenCV supports nothing else. The three forms are equal. The gradient goes to the pixel that is the median,
    or to one of several equal pixels.
    """

    name: ClassVar[str] = "median"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    any_range: ClassVar[bool] = True
    size: int = number(3, 3, 5, step=2)

    def __post_init__(self) -> None:
        check(self)

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply OpenCV's `medianBlur` to each crop."""
        filtered = [cv2.medianBlur(np.ascontiguousarray(crop), self.size) for crop in crops]
        return np.asarray(filtered, np.float32).reshape(crops.shape)

    def tensorflow(self, crops: Any) -> Any:
        """Run the median network on shifted copies of the crops."""
        import tensorflow as tf

        for _ in range(self.size // 2):
            # A symmetric pad by one pixel repeats the border. TensorFlow has no mode that repeats it for more pixels.
            crops = tf.pad(crops, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
        windows = [tensorflow_window(crops, self.size, i, j) for i in range(self.size) for j in range(self.size)]
        return _run_network(windows, tf.minimum, tf.maximum)

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add the median network as Min and Max nodes. TopK would be 25 times slower."""
        pads = graph.constant(np.array([0, 0, self.size // 2, self.size // 2] * 2, np.int64))
        padded = graph.add("Pad", [value, pads], mode="edge")
        windows = [onnx_window(graph, padded, self.size, i, j) for i in range(self.size) for j in range(self.size)]
        return _run_network(windows, lambda a, b: graph.add("Min", [a, b]), lambda a, b: graph.add("Max", [a, b]))


@cache
def median_network(count: int) -> tuple[tuple[int, int, bool, bool], ...]:
    """Return a network of compare-exchange steps that moves the median of `count` wires to the middle wire.

    It is Batcher's odd-even merge sort (1968) without the steps that the median does not need.

    Returns:
        Steps (low, high, keep minimum, keep maximum). The minimum goes to wire `low` and the maximum to wire `high`. A
        flag is False if no later step reads this wire.
    """
    exchanges = []
    run = 1
    while run < count:
        step = run
        while step:
            for start in range(step % run, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    # Merge only wires that belong to the same pair of sorted runs.
                    if low // (2 * run) == (low + step) // (2 * run):
                        exchanges.append((low, low + step))
            step //= 2
        run *= 2
    needed = {count // 2}
    kept = []
    for low, high in reversed(exchanges):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(kept))


def _run_network(values: Sequence[_T], minimum: Callable[[_T, _T], _T], maximum: Callable[[_T, _T], _T]) -> _T:
    wires = list(values)
    for low, high, keep_minimum, keep_maximum in median_network(len(wires)):
        a, b = wires[low], wires[high]
        if keep_minimum:
            wires[low] = minimum(a, b)
        if keep_maximum:
            wires[high] = maximum(a, b)
    return wires[len(wires) // 2]


DEFENSE = Median
