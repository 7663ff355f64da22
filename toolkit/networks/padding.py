"""Reflection padding for networks whose input sides must be multiples of a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_any_side(network: Callable[[Any], Any], multiple: int) -> Callable[[Any], Any]:
    """Wrap a network so that it accepts inputs of any height and width.

    The input is padded at the bottom and on the right by reflection (reflect-101, repeated if necessary). The output
    is cropped to the original size. Sides that are known to be multiples are not padded.

    Args:
        network: maps (N, H, W, C) to (N, H, W, C), where H and W are multiples of `multiple`.
        multiple: the number that H and W must be multiples of; 1 if the network accepts every size.

    Returns:
        A function from (N, H, W, C) to (N, H, W, C) for any H and W.
    """
    import tensorflow as tf

    def reflected(x: Any, axis: int) -> Any:
        if x.shape[axis] is not None and x.shape[axis] % multiple == 0:
            return x
        side = tf.shape(x)[axis]
        # Rounding up with -(-side // multiple) would be wrong after export, because tf2onnx rounds negative quotients
        # the wrong way.
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
