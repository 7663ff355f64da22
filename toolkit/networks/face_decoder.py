"""A decoder of faces from two codes: who it is, and how the photograph was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

if TYPE_CHECKING:
    from keras import KerasTensor

# Channels at 5, 10, 20, 40 and 80 pixels. The last doubling to 160 only reorders channels into pixels.
_CHANNELS = (256, 160, 96, 64, 32)


def face_decoder(identity_size: int = 128, style_size: int = 32, name: str = "face_decoder") -> keras.Model:
    """Build the network.

    The codes steer every scale: after each convolution the features are scaled and shifted by a linear function of
    both (feature-wise modulation, Perez et al. 2018, arXiv:1709.07871).

    Args:
        identity_size: length of the identity code, a verifier's embedding.
        style_size: length of the code for pose, light and expression.
        name: name of the model.

    Returns:
        A model from float32 (N, identity_size) and (N, style_size) to crops (N, 160, 160, 3), RGB in [0, 1].
    """
    identity = keras.Input((identity_size,), name="identity")
    style = keras.Input((style_size,), name="style")
    codes = layers.Concatenate(name="codes")([identity, style])
    codes = layers.Dense(256, activation="leaky_relu", name="mix")(codes)

    def block(x: KerasTensor, filters: int, name: str) -> KerasTensor:
        x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=name)(x)
        gain = layers.Reshape((1, 1, filters))(layers.Dense(filters, name=f"{name}_gain")(codes))
        shift = layers.Reshape((1, 1, filters))(layers.Dense(filters, name=f"{name}_shift")(codes))
        x = layers.Add()([layers.Multiply()([x, layers.Rescaling(1.0, 1.0)(gain)]), shift])
        return layers.LeakyReLU(0.1)(x)

    x = layers.Reshape((5, 5, _CHANNELS[0]))(layers.Dense(25 * _CHANNELS[0], name="start")(codes))
    x = layers.LeakyReLU(0.1)(x)
    for i, filters in enumerate(_CHANNELS[1:], 1):
        x = layers.UpSampling2D(2, interpolation="bilinear")(x)
        x = block(x, filters, f"conv{i}a")
        x = block(x, filters, f"conv{i}b")
    x = layers.Conv2D(12, 3, padding="same", name="pixels")(x)
    # Four groups of three channels become the four pixels of each 2 x 2 square.
    side = 5 * 2 ** (len(_CHANNELS) - 1)
    x = layers.Reshape((side, side, 2, 2, 3))(x)
    x = layers.Reshape((2 * side, 2 * side, 3))(layers.Permute((1, 3, 2, 4, 5))(x))
    return keras.Model([identity, style], layers.Activation("sigmoid", name="image")(x), name=name)
