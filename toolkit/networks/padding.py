"""Reflecting pads for networks whose sides must be multiples of a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_any_side(network: Callable[[Any], Any], multiple: int) -> Callable[[Any], Any]:
    """Let a network take sides of any length.

    Rows and columns are continued below and on the right by reflection (reflect-101), as often as it takes, and the
    result is cropped back. Sides that are known to be multiples are left alone.

    Args:
        network: maps (N, H, W, C) to (N, H, W, C) where H and W are multiples of `multiple`.
        multiple: 1 for a network that takes every side.
    """
    import tensorflow as tf

    def reflected(x: Any, axis: int) -> Any:
        if x.shape[axis] is not None and x.shape[axis] % multiple == 0:
            return x
        side = tf.shape(x)[axis]
        # tf2onnx rounds a negative quotient the wrong way: no trick with two minus signs here.
        padded = (side + (multiple - 1)) // multiple * multiple
        period = tf.maximum(2 * (side - 1), 1)
        place = tf.range(padded) % period
        return tf.gather(x, tf.minimum(place, period - place), axis=axis)

    def run(x: Any) -> Any:
        if multiple == 1:
            return network(x)
        height, width = tf.shape(x)[1], tf.shape(x)[2]
        return network(reflected(reflected(x, 1), 2))[:, :height, :width]

    return run
