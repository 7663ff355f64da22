"""Folding of batch normalizations into the preceding convolutions."""

from __future__ import annotations

import keras
import numpy as np

# The epsilon of every batch normalization in these networks. None of them has a scale parameter.
NORMALIZATION_EPSILON = 1e-3


def fold(model: keras.Model, folded: keras.Model) -> None:
    """Set the weights of `folded` so that it computes the same function as `model` in inference.

    A batch normalization after a convolution is equivalent to scaling its kernel and adding a bias. The folded network
    is smaller, and the stored weights are exactly those that are run.

    Args:
        model: the model built with ``folded=False``.
        folded: the model built with the same arguments but ``folded=True``. Its weights are changed.
    """
    for target in folded.layers:
        if not target.weights:
            continue
        source = model.get_layer(target.name)
        weights = source.get_weights()
        try:
            normalization = model.get_layer(f"{target.name}_BatchNorm")
        except ValueError:  # a layer with a bias and no normalization
            target.set_weights(weights)
            continue
        beta, mean, variance = normalization.get_weights()
        scale = 1.0 / np.sqrt(variance + NORMALIZATION_EPSILON)
        target.set_weights([weights[0] * scale, beta - mean * scale])
