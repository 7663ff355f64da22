"""Random numbers that are equal in NumPy, TensorFlow and ONNX for the same entropy.

A deployed graph must not be predictable, but ONNX Runtime's own generator is: all sessions of a process share one
sequence. Every image therefore has an entropy, a number of 62 bits that the host can provide. The draws of a defense
are a hash of it. The hash uses integers only, so that the three forms agree to the last bit. It is not a cipher: it
does not hide the entropy.

`uniforms` are few numbers, for decisions. `normals` are a number for each pixel: they are made 16 bits at a time from
words of 64 bits, because a hash of every number would take longer than the verifier.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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
# A key with irregular digits, as `_squares` needs, and an odd number that spreads neighboring entropies.
_KEY, _FACTOR = 0x5A8E3D1F9B27C46D, 0x1B3C5D7F9A2E4863
# Shifts that bring each 16 bits of a word to its top.
_PARTS = np.array([48, 32, 16, 0], np.uint64)
_UINT16, _INT32, _INT64, _UINT64 = 4, 6, 7, 13


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


def normals(entropy: NDArray[np.int64], stream: int, count: int) -> NDArray[np.float32]:
    """Return standard normal random numbers.

    Each is one of 2**16 values that are equally probable: the means of the normal distribution between two neighboring
    quantiles, scaled to a variance of 1. The largest is 4.4.

    Args:
        entropy: see `uniforms`.
        stream: see `uniforms`.
        count: how many random numbers each image gets.

    Returns:
        (N, count) float32.
    """
    key = _squares(_key(entropy, stream), np.int64(_KEY), _high) * 2 + 1
    words = _squares(np.arange(1, (count + 3) // 4 + 1) * key[:, None], key[:, None], _high).astype(np.uint64)
    parts = (words[:, :, None] << _PARTS) >> np.uint64(48)
    return _normal_values()[parts.reshape(len(entropy), -1)[:, :count]]


def tensorflow_normals(entropy: Any, stream: int, count: Any) -> Any:
    """Compute `normals` in TensorFlow. `entropy` is an int64 tensor (N,), and `count` may be a tensor."""
    import tensorflow as tf

    def high(x: Any) -> Any:
        return tf.bitcast(tf.bitwise.right_shift(tf.bitcast(x, tf.uint64), tf.constant(32, tf.uint64)), tf.int64)

    key = _squares(_key(entropy, stream), tf.constant(_KEY, tf.int64), high) * 2 + 1
    index = tf.range(1, (tf.cast(count, tf.int64) + 3) // 4 + 1, dtype=tf.int64)
    words = _squares(index * key[:, None], key[:, None], high)
    shifted = tf.bitwise.left_shift(tf.bitcast(words, tf.uint64)[:, :, None], tf.constant(_PARTS))
    parts = tf.bitwise.right_shift(shifted, tf.constant(48, tf.uint64))
    flat = tf.reshape(tf.cast(parts, tf.int32), (tf.shape(entropy)[0], -1))[:, :count]
    return tf.gather(tf.constant(_normal_values()), flat)


def onnx_normals(graph: Any, stream: int, count: str, deviation: float) -> str:
    """Add `normals` of the graph's entropy, times a standard deviation, to an ONNX graph.

    See `onnx_uniforms` for the arguments.

    Returns:
        The name of the random numbers (N * count,), image by image.
    """
    zero, one = (graph.constant(np.array([i], np.int64)) for i in (0, 1))

    def number(value: int) -> str:
        return str(graph.constant(np.array(value, np.int64)))

    def shifted(value: str, by: Any, direction: str) -> str:
        return str(graph.add("BitShift", [value, graph.constant(np.asarray(by, np.uint64))], direction=direction))

    def high(x: str) -> str:
        return str(graph.add("Cast", [shifted(graph.add("Cast", [x], to=_UINT64), 32, "RIGHT")], to=_INT64))

    def squares(x: str, key: str) -> str:
        y, z, whole = x, graph.add("Add", [x, key]), x
        for added in (y, z, y, z):
            whole = graph.add("Add", [graph.add("Mul", [x, x]), added])
            x = graph.add("Add", [graph.add("Mul", [whole, number(2**32)]), high(whole)])
        return str(graph.add("Add", [whole, high(graph.add("Add", [graph.add("Mul", [x, x]), y]))]))

    start = graph.add("Mul", [graph.entropy(), number(_FACTOR)])
    key = squares(graph.add("Add", [start, number(_stream_key(stream))]), number(_KEY))
    key = graph.add("Unsqueeze", [graph.add("Add", [graph.add("Mul", [key, number(2)]), number(1)]), one])
    words = graph.add("Div", [graph.add("Add", [count, number(3)]), number(4)])
    index = graph.add("Range", [number(1), graph.add("Add", [words, number(1)]), number(1)])
    hashed = squares(graph.add("Mul", [index, key]), key)
    hashed = graph.add("Cast", [hashed], to=_UINT64)
    last = graph.constant(np.array([2], np.int64))
    # The cast to 16 bits drops those above them. ONNX Runtime takes three times as long to shift by a tensor of four,
    # and four times as long to look up with Gather.
    quarters = [graph.add("Cast", [shifted(hashed, by, "RIGHT")], to=_UINT16) for by in 48 - _PARTS]
    parts = graph.add("Concat", [graph.add("Unsqueeze", [quarter, last]) for quarter in quarters], axis=2)
    each = graph.add("Reshape", [graph.add("Cast", [parts], to=_INT32), graph.constant(np.array([0, -1], np.int64))])
    exact = graph.add("Slice", [each, zero, graph.add("Unsqueeze", [count, zero]), one])
    flat = graph.add("Reshape", [exact, graph.constant(np.array([-1], np.int64))])
    return str(graph.add("GatherElements", [graph.constant(np.float32(deviation) * _normal_values()), flat], axis=0))


def _squares(x: Any, key: Any, high: Callable[[Any], Any]) -> Any:
    """Hash counters that were multiplied by a key, by squaring (squares64: Widynski 2020, arXiv:2004.06278).

    `high` moves the upper 32 bits of each number down. The rest is the same for NumPy and TensorFlow.
    """
    y, z, whole = x, x + key, x
    for added in (y, z, y, z):
        whole = x * x + added
        x = whole * 2**32 + high(whole)
    return whole + high(x * x + y)


def _high(x: NDArray[np.int64]) -> NDArray[np.int64]:
    return (x.view(np.uint64) >> np.uint64(32)).view(np.int64)


def _key(entropy: Any, stream: int) -> Any:
    """What the key of an image's words is hashed from."""
    return entropy * _FACTOR + _stream_key(stream)


def _stream_key(stream: int) -> int:
    return stream * 0x1F3D5B79ACE13 % 2**62


@cache
def _normal_values() -> NDArray[np.float32]:
    """The 2**16 values of `normals`, ascending."""
    # Imported here, because SciPy takes a second and only noise needs it.
    from scipy.stats import norm

    edges = norm.ppf(np.linspace(0, 1, 2**16 + 1))
    density = norm.pdf(edges)
    means = (density[:-1] - density[1:]) * 2**16
    values = np.asarray(means / np.sqrt(np.mean(np.square(means))), np.float32)
    values.setflags(write=False)
    return values


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
