"""Additive Gaussian noise, the randomness of randomized smoothing (Cohen et al. 2019, arXiv:1902.02918)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.randomness import onnx_uniforms, tensorflow_uniforms, uniforms
from toolkit.parameters import check, number

_SMALLEST = np.float32(2**-25)


@dataclass(frozen=True)
class Noise:
    """Adds independent Gaussian noise, and clips the result to [0, 1].

    The standard deviation `sigma` is from 0.001 to 0.5, as a share of the pixel range. The normal numbers are computed
    from pairs of uniform numbers (Box and Muller 1958).
    """

    name: ClassVar[str] = "noise"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    random: ClassVar[bool] = True
    sigma: float = number(0.05, 0.001, 0.5)

    def __post_init__(self) -> None:
        check(self)

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int) -> NDArray[np.float32]:
        """Add noise that is computed with `uniforms`. The numbers are in the order height, width, channel."""
        total = int(np.prod(crops.shape[1:]))
        half = (total + 1) // 2
        u = uniforms(entropy, stream, 2 * half)
        radius = np.sqrt(-2 * np.log(np.maximum(u[:, :half], _SMALLEST)))
        angle = np.float32(2 * np.pi) * u[:, half:]
        normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :total]
        return np.clip(crops + np.float32(self.sigma) * normal.reshape(crops.shape), 0, 1)

    def tensorflow(self, crops: Any, entropy: Any, stream: int) -> Any:
        """Add the same noise."""
        import tensorflow as tf

        shape = tf.shape(crops)
        total = tf.reduce_prod(shape[1:])
        half = (total + 1) // 2
        u = tensorflow_uniforms(entropy, stream, 2 * half)
        radius = tf.sqrt(-2 * tf.math.log(tf.maximum(u[:, :half], _SMALLEST)))
        angle = np.float32(2 * np.pi) * u[:, half:]
        normal = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)[:, :total]
        return tf.clip_by_value(crops + self.sigma * tf.reshape(normal, shape), 0.0, 1.0)

    def onnx(self, graph: GraphBuilder, value: str, stream: int) -> str:
        """Add nodes that add the same noise."""
        one, zeros = graph.integer(1), graph.constant(np.array([0], np.int64))
        shape = graph.add("Shape", [value])
        n, c, h, w = (graph.add("Gather", [shape, graph.integer(i)], axis=0) for i in range(4))
        total = graph.add("Mul", [graph.add("Mul", [c, h]), w])
        half = graph.add("Div", [graph.add("Add", [total, one]), graph.integer(2)])
        u = onnx_uniforms(graph, stream, graph.add("Mul", [half, graph.integer(2)]))
        at = [graph.add("Unsqueeze", [x, zeros]) for x in (n, h, w, c, total, half)]
        axis = graph.constant(np.array([1], np.int64))
        end = graph.constant(np.array([2**31 - 1], np.int64))
        first = graph.add("Slice", [u, zeros, at[5], axis])
        second = graph.add("Slice", [u, at[5], end, axis])
        logarithm = graph.add("Log", [graph.add("Max", [first, graph.constant(np.array(_SMALLEST))])])
        radius = graph.add("Sqrt", [graph.add("Mul", [logarithm, graph.constant(np.array(-2, np.float32))])])
        angle = graph.add("Mul", [second, graph.constant(np.array(2 * np.pi, np.float32))])
        parts = [graph.add("Mul", [radius, graph.add(f, [angle])]) for f in ("Cos", "Sin")]
        normal = graph.add("Slice", [graph.add("Concat", parts, axis=1), zeros, at[4], axis])
        image = graph.add("Reshape", [normal, graph.add("Concat", at[:4], axis=0)])
        noise = graph.add("Transpose", [image], perm=[0, 3, 1, 2])
        scaled = graph.add("Mul", [noise, graph.constant(np.array(self.sigma, np.float32))])
        limits = [graph.constant(np.array(limit, np.float32)) for limit in (0, 1)]
        return graph.add("Clip", [graph.add("Add", [value, scaled]), *limits])


DEFENSE = Noise
