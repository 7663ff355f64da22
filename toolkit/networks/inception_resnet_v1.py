"""Inception-ResNet-v1 with FaceNet's stem widths (Szegedy et al. 2016, arXiv:1602.07261, section 3.2).

Layers carry the names of the published FaceNet weights, so a checkpoint is loaded by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import layers

from toolkit.networks.folding import NORMALIZATION_EPSILON

if TYPE_CHECKING:
    from keras import KerasTensor

_BATCH_NORM_MOMENTUM = 0.99


def inception_resnet_v1(  # noqa: C901, PLR0915 - a network is a list of layers
    embedding_size: int = 512,
    width: float = 1.0,
    input_side: int | None = 160,
    dropout: float = 0.0,
    folded: bool = False,  # noqa: FBT001, FBT002 - also set from a manifest
    name: str = "inception_resnet_v1",
) -> keras.Model:
    """Build the network that maps standardized crops to embeddings.

    Args:
        embedding_size: length D of the embedding; FaceNet publishes 512 and 128.
        width: multiplier of every channel count but the embedding's, rounded to a multiple of 8.
            At 1.0 with D = 512 the model has 23.50 M parameters.
        input_side: side of the square input in pixels, at least 75 so that no stage is empty; None for
            any side, which progressive training needs.
        dropout: share of pooled features dropped in training, before the bottleneck.
        folded: leave the normalizations out and give the convolutions a bias in their place, see `fold`.
        name: name of the model.

    Returns:
        A model from float32 (N, side, side, 3), already standardized, to float32 (N, D).
        Embeddings are *not* L2-normalized: the last layer is ``Bottleneck_BatchNorm`` (folded: ``Bottleneck``).

    Raises:
        ValueError: a size is out of range.
    """
    if embedding_size < 1 or width <= 0 or (input_side is not None and input_side < 75):
        raise ValueError(
            f"embedding_size={embedding_size}, width={width}, input_side={input_side}: "
            "need at least 1, above 0 and at least 75"
        )

    def channels(full_width: int) -> int:
        return max(8, round(full_width * width / 8) * 8)

    def normalize(x: KerasTensor, name: str) -> KerasTensor:
        if folded:
            return x
        return layers.BatchNormalization(
            scale=False, epsilon=NORMALIZATION_EPSILON, momentum=_BATCH_NORM_MOMENTUM, name=f"{name}_BatchNorm"
        )(x)

    def conv(
        x: KerasTensor, filters: int, kernel: tuple[int, int], name: str, strides: int = 1, padding: str = "same"
    ) -> KerasTensor:
        x = layers.Conv2D(filters, kernel, strides=strides, padding=padding, use_bias=folded, name=name)(x)
        return layers.Activation("relu", name=f"{name}_Activation")(normalize(x, name))

    def residual(
        x: KerasTensor, branches: list[KerasTensor], scale: float, name: str, *, activate: bool
    ) -> KerasTensor:
        mixed = layers.Concatenate(name=f"{name}_Concatenate")(branches)
        mixed = layers.Conv2D(x.shape[-1], 1, name=f"{name}_Conv2d_1x1")(mixed)
        mixed = layers.Rescaling(scale, name=f"{name}_Scale")(mixed)
        x = layers.Add(name=f"{name}_Add")([x, mixed])
        return layers.Activation("relu", name=f"{name}_Activation")(x) if activate else x

    def block35(x: KerasTensor, name: str) -> KerasTensor:
        c = channels(32)
        b0 = conv(x, c, (1, 1), f"{name}_Branch_0_Conv2d_1x1")
        b1 = conv(x, c, (1, 1), f"{name}_Branch_1_Conv2d_0a_1x1")
        b1 = conv(b1, c, (3, 3), f"{name}_Branch_1_Conv2d_0b_3x3")
        b2 = conv(x, c, (1, 1), f"{name}_Branch_2_Conv2d_0a_1x1")
        b2 = conv(b2, c, (3, 3), f"{name}_Branch_2_Conv2d_0b_3x3")
        b2 = conv(b2, c, (3, 3), f"{name}_Branch_2_Conv2d_0c_3x3")
        return residual(x, [b0, b1, b2], 0.17, name, activate=True)

    def asymmetric_block(
        x: KerasTensor, c: int, length: int, scale: float, name: str, *, activate: bool = True
    ) -> KerasTensor:
        """Block17 and Block8: a 1x1 branch beside a 1 x length, length x 1 branch."""
        b0 = conv(x, c, (1, 1), f"{name}_Branch_0_Conv2d_1x1")
        b1 = conv(x, c, (1, 1), f"{name}_Branch_1_Conv2d_0a_1x1")
        b1 = conv(b1, c, (1, length), f"{name}_Branch_1_Conv2d_0b_1x{length}")
        b1 = conv(b1, c, (length, 1), f"{name}_Branch_1_Conv2d_0c_{length}x1")
        return residual(x, [b0, b1], scale, name, activate=activate)

    def pool(x: KerasTensor, name: str) -> KerasTensor:
        return layers.MaxPooling2D(3, strides=2, padding="valid", name=name)(x)

    inputs = keras.Input((input_side, input_side, 3), name="input")
    x = conv(inputs, channels(32), (3, 3), "Conv2d_1a_3x3", strides=2, padding="valid")
    x = conv(x, channels(32), (3, 3), "Conv2d_2a_3x3", padding="valid")
    x = conv(x, channels(64), (3, 3), "Conv2d_2b_3x3")
    x = pool(x, "MaxPool_3a_3x3")
    x = conv(x, channels(80), (1, 1), "Conv2d_3b_1x1", padding="valid")
    x = conv(x, channels(192), (3, 3), "Conv2d_4a_3x3", padding="valid")
    x = conv(x, channels(256), (3, 3), "Conv2d_4b_3x3", strides=2, padding="valid")

    for i in range(1, 6):
        x = block35(x, f"Block35_{i}")

    name_a = "Mixed_6a"
    b0 = conv(x, channels(384), (3, 3), f"{name_a}_Branch_0_Conv2d_1a_3x3", strides=2, padding="valid")
    b1 = conv(x, channels(192), (1, 1), f"{name_a}_Branch_1_Conv2d_0a_1x1")
    b1 = conv(b1, channels(192), (3, 3), f"{name_a}_Branch_1_Conv2d_0b_3x3")
    b1 = conv(b1, channels(256), (3, 3), f"{name_a}_Branch_1_Conv2d_1a_3x3", strides=2, padding="valid")
    x = layers.Concatenate(name=name_a)([b0, b1, pool(x, f"{name_a}_Branch_2_MaxPool_1a_3x3")])

    for i in range(1, 11):
        x = asymmetric_block(x, channels(128), 7, 0.10, f"Block17_{i}")

    name_a = "Mixed_7a"
    b0 = conv(x, channels(256), (1, 1), f"{name_a}_Branch_0_Conv2d_0a_1x1")
    b0 = conv(b0, channels(384), (3, 3), f"{name_a}_Branch_0_Conv2d_1a_3x3", strides=2, padding="valid")
    b1 = conv(x, channels(256), (1, 1), f"{name_a}_Branch_1_Conv2d_0a_1x1")
    b1 = conv(b1, channels(256), (3, 3), f"{name_a}_Branch_1_Conv2d_1a_3x3", strides=2, padding="valid")
    b2 = conv(x, channels(256), (1, 1), f"{name_a}_Branch_2_Conv2d_0a_1x1")
    b2 = conv(b2, channels(256), (3, 3), f"{name_a}_Branch_2_Conv2d_0b_3x3")
    b2 = conv(b2, channels(256), (3, 3), f"{name_a}_Branch_2_Conv2d_1a_3x3", strides=2, padding="valid")
    x = layers.Concatenate(name=name_a)([b0, b1, b2, pool(x, f"{name_a}_Branch_3_MaxPool_1a_3x3")])

    for i in range(1, 6):
        x = asymmetric_block(x, channels(192), 3, 0.20, f"Block8_{i}")
    x = asymmetric_block(x, channels(192), 3, 1.0, "Block8_6", activate=False)

    x = layers.GlobalAveragePooling2D(name="AvgPool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="Dropout")(x)
    x = layers.Dense(embedding_size, use_bias=folded, name="Bottleneck")(x)
    return keras.Model(inputs, normalize(x, "Bottleneck"), name=name)
