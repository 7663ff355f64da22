"""Normalizations folded into the convolutions before them."""

from __future__ import annotations

import keras
import numpy as np

# Of every normalization in these networks; none of them has a scale.
NORMALIZATION_EPSILON = 1e-3


def fold(model: keras.Model, folded: keras.Model) -> None:
    """Set the weights of `folded` so that it computes what `model` does in inference.

    A normalization behind a convolution is a scale of its kernel and a bias; without it the network is smaller,
    and what is stored is what is run.

    Args:
        model: built with ``folded=False``.
        folded: built with the same arguments but ``folded=True``.
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
