"""Random resizing: reduce and pad (Xie et al. 2018, arXiv:1711.01991), or crop and enlarge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.affine import moved, onnx_moved, tensorflow_moved
from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.randomness import onnx_uniforms, tensorflow_uniforms, uniforms
from toolkit.parameters import check, number


@dataclass(frozen=True)
class RandomZoom:
    """Resizes each crop by a random factor and moves it to a random position.

    The factor is from `smallest` to `largest`, which are from 0.5 to 2. With a factor below 1, the whole crop stays
    visible and the rest is black (resize and pad). With a factor above 1, a random part of the crop is enlarged (crop
    and rescale). The interpolation is bilinear, without a low-pass filter.
    """

    name: ClassVar[str] = "random-zoom"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    random: ClassVar[bool] = True
    smallest: float = number(0.88, 0.5, 2.0)
    largest: float = number(1.0, 0.5, 2.0)

    def __post_init__(self) -> None:
        check(self)
        if self.smallest > self.largest:
            raise ValueError(f"smallest is {self.smallest}; it must not be above largest, which is {self.largest}")

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int) -> NDArray[np.float32]:
        """Resample each crop with tent weights along both axes."""
        u = uniforms(entropy, stream, 3)
        zoom = np.float32(self.smallest) + np.float32(self.largest - self.smallest) * u[:, 0]
        return moved(crops, zoom, (2 * u[:, 1:] - 1) * np.abs(1 - 1 / zoom)[:, None])

    def tensorflow(self, crops: Any, entropy: Any, stream: int) -> Any:
        """Resample with the same random numbers."""
        import tensorflow as tf

        u = tensorflow_uniforms(entropy, stream, 3)
        zoom = self.smallest + (self.largest - self.smallest) * u[:, 0]
        return tensorflow_moved(crops, zoom, (2 * u[:, 1:] - 1) * tf.abs(1 - 1 / zoom)[:, None])

    def onnx(self, graph: GraphBuilder, value: str, stream: int) -> str:
        """Add nodes that resample with the same random numbers."""

        def number(x: float) -> str:
            return graph.constant(np.array(x, np.float32))

        u = onnx_uniforms(graph, stream, graph.integer(3))
        first = graph.add("Gather", [u, graph.constant(np.array([0], np.int64))], axis=1)
        others = graph.add("Gather", [u, graph.constant(np.array([1, 2], np.int64))], axis=1)
        spread = graph.add("Mul", [first, number(self.largest - self.smallest)])
        zoom = graph.add("Add", [spread, number(self.smallest)])
        free = graph.add("Abs", [graph.add("Sub", [number(1), graph.add("Reciprocal", [zoom])])])
        direction = graph.add("Sub", [graph.add("Add", [others, others]), number(1)])
        return onnx_moved(graph, value, zoom, graph.add("Mul", [direction, free]))


DEFENSE = RandomZoom
