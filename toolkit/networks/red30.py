"""RED30, the residual encoder-decoder of 30 layers (Mao et al. 2016, arXiv:1603.09056, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

if TYPE_CHECKING:
    from keras import KerasTensor

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
