"""DnCNN-B, blind and in color (Zhang et al. 2017, arXiv:1608.03981, section III)."""

from __future__ import annotations

import keras
from keras import layers

from toolkit.networks.folding import NORMALIZATION_EPSILON


def dncnn(width: int = 64, depth: int = 20, folded: bool = False, name: str = "dncnn") -> keras.Model:  # noqa: FBT001, FBT002 - also set from a manifest
    """Build the network. It predicts the noise and subtracts it from the input.

    Args:
        width: the number of channels of the hidden layers. With 64 and depth 20 the model has 0.67 M parameters.
        depth: the number of convolutions.
        folded: replace the batch normalizations by biases of the convolutions. See `fold`.
        name: the name of the model.

    Returns:
        A model from float32 (N, H, W, 3), RGB in [0, 1], to the denoised crops.
    """
    inputs = keras.Input((None, None, 3), name="input")
    x = layers.Conv2D(width, 3, padding="same", activation="relu", name="conv1")(inputs)
    for i in range(2, depth):
        x = layers.Conv2D(width, 3, padding="same", use_bias=folded, kernel_initializer="he_normal", name=f"conv{i}")(x)
        if not folded:
            x = layers.BatchNormalization(
                scale=False, epsilon=NORMALIZATION_EPSILON, momentum=0.95, name=f"conv{i}_BatchNorm"
            )(x)
        x = layers.Activation("relu", name=f"conv{i}_Activation")(x)
    noise = layers.Conv2D(3, 3, padding="same", name=f"conv{depth}")(x)
    return keras.Model(inputs, layers.Subtract(name="Denoised")([inputs, noise]), name=name)
