"""RED30, the residual encoder-decoder of 30 layers (Mao et al. 2016, arXiv:1603.09056, section 3)."""

from __future__ import annotations

import keras
from keras import layers

_HALF = 15


def red30(width: int = 64, name: str = "red30") -> keras.Model:
    """Build the network: 15 convolutions, 15 mirrored ones, and every second feature map added to its mirror.

    The mirrored layers are transposed convolutions in the paper. At stride 1 those are convolutions with the kernel
    turned around, which is how they are built here: the functions that can be learned are the same.

    Args:
        width: channels of every layer. At 64: 1.04 M parameters.
        name: name of the model.

    Returns:
        A model from float32 (N, H, W, 3), RGB in [0, 1], to the denoised crops.
    """
    inputs = keras.Input((None, None, 3), name="input")
    x, skips = inputs, [inputs]
    for i in range(1, _HALF + 1):
        x = layers.Conv2D(width, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"conv{i}")(x)
        if i % 2 == 0:
            skips.append(x)
    for i in range(1, _HALF + 1):
        last = i == _HALF
        x = layers.Conv2D(3 if last else width, 3, padding="same", kernel_initializer="he_normal", name=f"deconv{i}")(x)
        if i % 2 == 1:
            x = layers.Add(name=f"skip{i}")([x, skips.pop()])
        if not last:
            x = layers.Activation("relu", name=f"deconv{i}_Activation")(x)
    return keras.Model(inputs, x, name=name)
