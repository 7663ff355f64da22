"""A random choice among defenses, made anew for every image (the paper's future work, section 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import AnyDefense, Backward, GraphBuilder, apply_numpy, apply_onnx, apply_tensorflow
from toolkit.defenses.randomness import onnx_uniforms, tensorflow_uniforms, uniforms

_FEWEST, _MOST = 2, 8


@dataclass(frozen=True)
class Choice:
    """Runs each image through one of 2 to 8 `options`, all equally likely.

    In a graph every option is computed and one is kept: the cost is the sum of all, and time does not tell which.
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
            raise ValueError("options must not be choices themselves; list all of them in one")

    @property
    def sha256(self) -> str:
        """Hashes of the files that options read."""
        return "".join(getattr(option, "sha256", "") for option in self.options)

    @property
    def opset(self) -> int:
        """The newest operator set that an option needs."""
        return max(getattr(option, "opset", 0) for option in self.options)

    @property
    def smallest_side(self) -> int:
        """The largest that an option needs."""
        return max(getattr(option, "smallest_side", 1) for option in self.options)

    def _stream(self, stream: int, option: int) -> int:
        """What options draw must not depend on what the choice drew."""
        return (stream + 1) * 1000 + option

    def numpy(self, crops: NDArray[np.float32], entropy: NDArray[np.int64], stream: int) -> NDArray[np.float32]:
        """Each option on its own images."""
        chosen = (uniforms(entropy, stream, 1)[:, 0] * len(self.options)).astype(int)
        result = np.empty_like(crops)
        for i, option in enumerate(self.options):
            mine = chosen == i
            if mine.any():
                result[mine] = apply_numpy(option, crops[mine], entropy[mine], self._stream(stream, i))
        return result

    def tensorflow(self, crops: Any, entropy: Any, stream: int) -> Any:
        """Every option on every image, and one kept; gradients flow through the one."""
        import tensorflow as tf

        chosen = tf.floor(tensorflow_uniforms(entropy, stream, 1)[:, :, None, None] * len(self.options))
        result = tf.zeros_like(crops)
        for i, option in enumerate(self.options):
            value = apply_tensorflow(option, crops, entropy, self._stream(stream, i))
            result = tf.where(chosen == i, value, result)
        return result

    def onnx(self, graph: GraphBuilder, value: str, stream: int) -> str:
        """Every option on every image, and one kept."""

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
