"""Random numbers that are equal in NumPy, TensorFlow and ONNX for the same entropy.

A deployed graph must not be predictable, but ONNX Runtime's own generator is: all sessions of a process share one
sequence. Every image therefore has an entropy, a number of 62 bits that the host can provide. The draws of a defense
are a hash of it. The hash uses integers only, so that the three forms agree to the last bit. It is not a cipher: it
does not hide the entropy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# The product of two numbers below this fits into 63 bits.
_PRIME = 2**31 - 1
_MULTIPLIER, _STEP = 48271, 69621
_ROUNDS = 4
_FRACTION = 2**24
# The step from the entropy of one draw of an image to the entropy of the next draw.
_DRAW = 805459861


def uniforms(entropy: NDArray[np.int64], stream: int, count: int) -> NDArray[np.float32]:
    """Return uniform random numbers in [0, 1).

    Args:
        entropy: (N,), one number from 0 to 2**62 for each image.
        stream: a number that makes the draws of different defenses independent.
        count: how many random numbers each image gets.

    Returns:
        (N, count) float32, multiples of 2**-24.
    """
    low, high = entropy[:, None] % _PRIME, entropy[:, None] // _PRIME % _PRIME
    x = (low + _offsets(stream, count)) % _PRIME
    for _ in range(_ROUNDS):
        x = (x * _MULTIPLIER + x * x % _PRIME + high) % _PRIME
    return (x % _FRACTION).astype(np.float32) / np.float32(_FRACTION)


def tensorflow_uniforms(entropy: Any, stream: int, count: Any) -> Any:
    """Compute `uniforms` in TensorFlow. `entropy` is an int64 tensor (N,), and `count` may be a tensor."""
    import tensorflow as tf

    low, high = entropy[:, None] % _PRIME, entropy[:, None] // _PRIME % _PRIME
    index = tf.range(tf.cast(count, tf.int64), dtype=tf.int64)
    x = (low + (index * _STEP + _start(stream)) % _PRIME) % _PRIME
    for _ in range(_ROUNDS):
        x = (x * _MULTIPLIER + x * x % _PRIME + high) % _PRIME
    return tf.cast(x % _FRACTION, tf.float32) / _FRACTION


def onnx_uniforms(graph: Any, stream: int, count: str) -> str:
    """Add `uniforms` of the graph's entropy to an ONNX graph.

    Args:
        graph: the `GraphBuilder`.
        stream: see `uniforms`.
        count: the name of an int64 scalar.

    Returns:
        The name of the random numbers (N, count).
    """

    def number(value: int) -> str:
        return str(graph.constant(np.array(value, np.int64)))

    def modulo(value: str, by: int = _PRIME) -> str:
        return str(graph.add("Mod", [value, number(by)]))

    entropy = graph.add("Unsqueeze", [graph.entropy(), graph.constant(np.array([1], np.int64))])
    low, high = modulo(entropy), modulo(graph.add("Div", [entropy, number(_PRIME)]))
    index = graph.add("Range", [number(0), count, number(1)])
    offsets = modulo(graph.add("Add", [graph.add("Mul", [index, number(_STEP)]), number(_start(stream))]))
    x = modulo(graph.add("Add", [low, offsets]))
    for _ in range(_ROUNDS):
        square = modulo(graph.add("Mul", [x, x]))
        x = graph.add("Add", [graph.add("Mul", [x, number(_MULTIPLIER)]), square])
        x = modulo(graph.add("Add", [x, high]))
    fraction = graph.add("Cast", [modulo(x, _FRACTION)], to=1)
    return str(graph.add("Div", [fraction, graph.constant(np.array(_FRACTION, np.float32))]))


def spread(entropy: NDArray[np.int64], draws: int) -> NDArray[np.int64]:
    """Return entropies (draws * N,) for several draws of each image.

    Draw 1 of all images comes first, then draw 2, and so on. Draw 1 has the values of `entropy` (N,).
    """
    low, high = entropy % _PRIME, entropy // _PRIME
    return (low + _PRIME * ((high + _steps(draws)) % _PRIME)).ravel()


def tensorflow_spread(entropy: Any, draws: int) -> Any:
    """Compute `spread` in TensorFlow."""
    import tensorflow as tf

    low, high = entropy % _PRIME, entropy // _PRIME
    return tf.reshape(low + _PRIME * ((high + _steps(draws)) % _PRIME), (-1,))


def onnx_spread(graph: Any, entropy: str, draws: int) -> str:
    """Add `spread` of the value `entropy` to an ONNX graph. Return the name of the result."""
    prime = graph.integer(_PRIME)
    low, high = graph.add("Mod", [entropy, prime]), graph.add("Div", [entropy, prime])
    turned = graph.add("Mod", [graph.add("Add", [high, graph.constant(_steps(draws))]), prime])
    each = graph.add("Add", [low, graph.add("Mul", [turned, prime])])
    return str(graph.add("Reshape", [each, graph.constant(np.array([-1]))]))


def _steps(draws: int) -> NDArray[np.int64]:
    return np.arange(draws, dtype=np.int64)[:, None] * _DRAW


def _start(stream: int) -> int:
    return stream * 7368787 % _PRIME


def _offsets(stream: int, count: int) -> NDArray[np.int64]:
    return (np.arange(count, dtype=np.int64) * _STEP + _start(stream)) % _PRIME
