"""A random choice of one defense for every image (the paper's future work, section 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import (
    AnyDefense,
    Backward,
    GraphBuilder,
    apply_numpy,
    apply_onnx,
    apply_tensorflow,
    file_hash,
    multiple,
    oldest_opset,
    sides,
    smallest_side,
)
from toolkit.defenses.randomness import onnx_uniforms, tensorflow_uniforms, uniforms

_FEWEST, _MOST = 2, 8


@dataclass(frozen=True)
class Choice:
    """Applies one of several defenses to each image, chosen at random.

    The `options` are 2 to 8 defenses with equal probability. A graph computes all options and keeps one of them. Its
    cost is therefore the sum of all options, and its run time does not reveal the choice.
    """

    name: ClassVar[str] = "choice"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    random: ClassVar[bool] = True
    options: tuple[AnyDefense, ...] = field(default=(), metadata={"defenses": True, "fewest": _FEWEST, "most": _MOST})

    def __post_init__(self) -> None:
        if not _FEWEST <= len(self.options) <= _MOST:
            raise ValueError(f"options must be {_FEWEST} to {_MOST} defenses, not {len(self.options)}")
        if any(option.name == self.name for option in self.options):
            raise ValueError("options must not be choices themselves; list all options in one choice")
        if any(len(fixed) > 1 for fixed in self._fixed_sides()):
            raise ValueError("options must not be networks for crops of different sizes; export them for any size")

    @property
    def sha256(self) -> str:
        """The hashes of the files that the options read."""
        return "".join(map(file_hash, self.options))

    @property
    def opset(self) -> int:
        """The newest operator set that an option needs."""
        return max(map(oldest_opset, self.options))

    @property
    def smallest_side(self) -> int:
        """The smallest side of a crop that all options accept."""
        return max(map(smallest_side, self.options))

    @property
    def multiple(self) -> int:
        """What both sides of a crop must be a multiple of, for every option."""
        return math.lcm(*map(multiple, self.options))

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """The height and width that an option needs; None if every option accepts any."""
        height, width = (next(iter(fixed), None) for fixed in self._fixed_sides())
        return height, width

    def _fixed_sides(self) -> list[set[int]]:
        """The heights and the widths that single options need."""
        heights, widths = zip(*map(sides, self.options), strict=True)
        return [{side for side in axis if side is not None} for axis in (heights, widths)]

    def _stream(self, stream: int, option: int) -> int:
        """Return the stream of an option. It makes the option's draws independent of the choice's draw."""
        return (stream + 1) * 1000 + option

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int) -> NDArray[np.float32]:
        """Apply each option to the images that it was chosen for."""
        chosen = (uniforms(entropy, stream, 1)[:, 0] * len(self.options)).astype(int)
        result = np.empty_like(crops)
        for i, option in enumerate(self.options):
            mine = chosen == i
            if mine.any():
                result[mine] = apply_numpy(option, crops[mine], entropy[mine], self._stream(stream, i))
        return result

    def tensorflow(self, crops: Any, entropy: Any, stream: int) -> Any:
        """Apply every option to every image, and keep one. Gradients flow through the kept one."""
        import tensorflow as tf

        chosen = tf.floor(tensorflow_uniforms(entropy, stream, 1)[:, :, None, None] * len(self.options))
        result = tf.zeros_like(crops)
        for i, option in enumerate(self.options):
            value = apply_tensorflow(option, crops, entropy, self._stream(stream, i))
            result = tf.where(chosen == i, value, result)
        return result

    def onnx(self, graph: GraphBuilder, value: str, stream: int) -> str:
        """Apply every option to every image, and keep one."""

        def number(x: float) -> str:
            return graph.constant(np.array(x, np.float32))

        u = onnx_uniforms(graph, stream, graph.integer(1))
        drawn = graph.add("Unsqueeze", [u, graph.constant(np.array([2, 3], np.int64))])
        chosen = graph.add("Mul", [drawn, number(len(self.options))])
        result = apply_onnx(self.options[0], graph, value, self._stream(stream, 0))
        for i, option in enumerate(self.options[1:], 1):
            defended = apply_onnx(option, graph, value, self._stream(stream, i))
            result = graph.add("Where", [graph.add("Less", [chosen, number(i)]), result, defended])
        return result


DEFENSE = Choice
