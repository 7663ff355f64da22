"""Gradients for steps that have no useful gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def straight_through(step: Callable[[Any], Any], value: Any) -> Any:
    """Compute `step(value)` in TensorFlow with the gradient of the identity (Bengio et al. 2013; BPDA).

    The usual `value + stop_gradient(step(value) - value)` would have rounding errors in the forward value.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def through(x: Any) -> Any:
        return step(x), lambda upstream: upstream

    return through(value)
