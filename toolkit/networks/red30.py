"""RED30, the residual encoder-decoder of 30 layers (Mao et al. 2016, arXiv:1603.09056, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

if TYPE_CHECKING:
    from keras import KerasTensor

_HALF = 15


def red30(width: int = 64, name: str = "red30") -> keras.Model:
    """Build the network: 15 encoder and 15 decoder convolutions, with a skip connection at every second layer.

    In the paper, the decoder layers are transposed convolutions. At stride 1 these are ordinary convolutions with a
    rotated kernel. They are built as ordinary convolutions here, because both can learn the same functions.

    Args:
        width: the number of channels of every layer. With 64 the model has 1.04 M parameters.
        name: the name of the model.

    Returns:
        A model from float32 (N, H, W, 3), RGB in [0, 1], to the denoised crops.
    """

    def conv(x: KerasTensor, filters: int, name: str) -> KerasTensor:
        return layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=name)(x)

    inputs = keras.Input((None, None, 3), name="input")
    x, skips = inputs, [inputs]
    for i in range(1, _HALF + 1):
        x = layers.Activation("relu", name=f"conv{i}_Activation")(conv(x, width, f"conv{i}"))
        if i % 2 == 0:
            skips.append(x)
    for i in range(1, _HALF + 1):
        x = conv(x, width if i < _HALF else 3, f"deconv{i}")
        if i % 2 == 1:
            x = layers.Add(name=f"skip{i}")([x, skips.pop()])
        if i < _HALF:
            x = layers.Activation("relu", name=f"deconv{i}_Activation")(x)
    return keras.Model(inputs, x, name=name)
