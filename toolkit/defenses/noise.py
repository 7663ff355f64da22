"""Additive Gaussian noise, the randomness of randomized smoothing (Cohen et al. 2019, arXiv:1902.02918)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.randomness import normals, onnx_normals, tensorflow_normals
from toolkit.parameters import check, number


@dataclass(frozen=True)
class Noise:
    """Adds independent Gaussian noise, and clips the result to [0, 1].

    The standard deviation `sigma` is from 0.001 to 1, as a share of the pixel range.

    With `block` above 1, the crop is first averaged over blocks of this many pixels squared, and each average gets the
    noise that is left after averaging noise of deviation `sigma`: `sigma / block`. What follows sees a coarser image,
    and the certificate of randomized smoothing is the same as for noise of `sigma` on every pixel, because averaging is
    linear: the average of a perturbation is shorter than the perturbation by at least the same factor. It costs
    `block**2` times fewer random numbers, and noise is averaged before it is clipped. Both sides of the crop must be
    multiples of `block`.
    """

    name: ClassVar[str] = "noise"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    random: ClassVar[bool] = True
    sigma: float = number(0.05, 0.001, 1.0)
    block: int = number(1, 1, 8)

    def __post_init__(self) -> None:
        check(self)

    @property
    def multiple(self) -> int:
        """What both sides of a crop must be a multiple of."""
        return self.block

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int) -> NDArray[np.float32]:
        """Add noise that is computed with `normals`. The numbers are in the order channel, height, width."""
        by = self.block
        n, height, width, c = crops.shape
        means = crops.reshape(n, height // by, by, width // by, by, c).mean(axis=(2, 4))
        noise = normals(entropy, stream, int(np.prod(means.shape[1:])))
        planes = noise.reshape(n, c, height // by, width // by).transpose(0, 2, 3, 1)
        noisy = np.clip(means + np.float32(self.sigma / by) * planes, 0, 1).astype(np.float32)
        return noisy.repeat(by, axis=1).repeat(by, axis=2)

    def tensorflow(self, crops: Any, entropy: Any, stream: int) -> Any:
        """Add the same noise."""
        import tensorflow as tf

        by = self.block
        means = tf.nn.avg_pool2d(crops, by, by, "VALID") if by > 1 else crops
        n, height, width, c = tf.unstack(tf.shape(means))
        noise = tensorflow_normals(entropy, stream, height * width * c)
        planes = tf.transpose(tf.reshape(noise, (n, c, height, width)), (0, 2, 3, 1))
        noisy = tf.clip_by_value(means + self.sigma / by * planes, 0.0, 1.0)
        return tf.repeat(tf.repeat(noisy, by, axis=1), by, axis=2) if by > 1 else noisy

    def onnx(self, graph: GraphBuilder, value: str, stream: int) -> str:
        """Add nodes that add the same noise."""
        by = self.block
        if by > 1:
            value = graph.add("AveragePool", [value], kernel_shape=[by, by], strides=[by, by])
        value = graph.drawn(value)
        shape = graph.add("Shape", [value])
        c, h, w = (graph.add("Gather", [shape, graph.integer(i)], axis=0) for i in (1, 2, 3))
        scaled = onnx_normals(graph, stream, graph.add("Mul", [graph.add("Mul", [c, h]), w]), self.sigma / by)
        limits = [graph.constant(np.array(limit, np.float32)) for limit in (0, 1)]
        noisy = graph.add("Clip", [graph.add("Add", [value, graph.add("Reshape", [scaled, shape])]), *limits])
        if by == 1:
            return noisy
        scales = graph.constant(np.array([1, 1, by, by], np.float32))
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return graph.add("Resize", [noisy, "", scales], **attributes)


DEFENSE = Noise
