"""Inception-ResNet-v1 with FaceNet's stem widths (Szegedy et al. 2016, arXiv:1602.07261, section 3.2).

Layers have the same names as in the published FaceNet weights, so that checkpoints can be loaded by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
from keras import layers

from toolkit.networks.folding import NORMALIZATION_EPSILON

if TYPE_CHECKING:
    from keras import KerasTensor

_BATCH_NORM_MOMENTUM = 0.99


@dataclass(frozen=True)
class _Layers:
    """The building blocks of the network at one width, with or without batch normalization."""

    width: float
    folded: bool

    def channels(self, full_width: int) -> int:
        return max(8, round(full_width * self.width / 8) * 8)

    def normalize(self, x: KerasTensor, name: str) -> KerasTensor:
        if self.folded:
            return x
        return layers.BatchNormalization(
            scale=False, epsilon=NORMALIZATION_EPSILON, momentum=_BATCH_NORM_MOMENTUM, name=f"{name}_BatchNorm"
        )(x)

    def conv(
        self, x: KerasTensor, filters: int, kernel: tuple[int, int], name: str, strides: int = 1, padding: str = "same"
    ) -> KerasTensor:
        """Add a convolution, a normalization and an activation. `filters` is the number of filters at full width."""
        channels = self.channels(filters)
        x = layers.Conv2D(channels, kernel, strides=strides, padding=padding, use_bias=self.folded, name=name)(x)
        return layers.Activation("relu", name=f"{name}_Activation")(self.normalize(x, name))

    def reduce(self, x: KerasTensor, filters: int, name: str) -> KerasTensor:
        """Add a 3 x 3 convolution that halves the height and width."""
        return self.conv(x, filters, (3, 3), name, strides=2, padding="valid")

    def pool(self, x: KerasTensor, name: str) -> KerasTensor:
        return layers.MaxPooling2D(3, strides=2, padding="valid", name=name)(x)

    def block35(self, x: KerasTensor, name: str) -> KerasTensor:
        b0 = self.conv(x, 32, (1, 1), f"{name}_Branch_0_Conv2d_1x1")
        b1 = self.conv(x, 32, (1, 1), f"{name}_Branch_1_Conv2d_0a_1x1")
        b1 = self.conv(b1, 32, (3, 3), f"{name}_Branch_1_Conv2d_0b_3x3")
        b2 = self.conv(x, 32, (1, 1), f"{name}_Branch_2_Conv2d_0a_1x1")
        b2 = self.conv(b2, 32, (3, 3), f"{name}_Branch_2_Conv2d_0b_3x3")
        b2 = self.conv(b2, 32, (3, 3), f"{name}_Branch_2_Conv2d_0c_3x3")
        return _residual(x, [b0, b1, b2], 0.17, name, activate=True)

    def asymmetric_block(
        self, x: KerasTensor, filters: int, length: int, scale: float, name: str, *, activate: bool = True
    ) -> KerasTensor:
        """Add a Block17 or Block8: a 1 x 1 branch in parallel with a 1 x length, length x 1 branch."""
        b0 = self.conv(x, filters, (1, 1), f"{name}_Branch_0_Conv2d_1x1")
        b1 = self.conv(x, filters, (1, 1), f"{name}_Branch_1_Conv2d_0a_1x1")
        b1 = self.conv(b1, filters, (1, length), f"{name}_Branch_1_Conv2d_0b_1x{length}")
        b1 = self.conv(b1, filters, (length, 1), f"{name}_Branch_1_Conv2d_0c_{length}x1")
        return _residual(x, [b0, b1], scale, name, activate=activate)

    def stem(self, x: KerasTensor) -> KerasTensor:
        x = self.reduce(x, 32, "Conv2d_1a_3x3")
        x = self.conv(x, 32, (3, 3), "Conv2d_2a_3x3", padding="valid")
        x = self.conv(x, 64, (3, 3), "Conv2d_2b_3x3")
        x = self.pool(x, "MaxPool_3a_3x3")
        x = self.conv(x, 80, (1, 1), "Conv2d_3b_1x1", padding="valid")
        x = self.conv(x, 192, (3, 3), "Conv2d_4a_3x3", padding="valid")
        return self.reduce(x, 256, "Conv2d_4b_3x3")

    def mixed_6a(self, x: KerasTensor, name: str = "Mixed_6a") -> KerasTensor:
        b0 = self.reduce(x, 384, f"{name}_Branch_0_Conv2d_1a_3x3")
        b1 = self.conv(x, 192, (1, 1), f"{name}_Branch_1_Conv2d_0a_1x1")
        b1 = self.conv(b1, 192, (3, 3), f"{name}_Branch_1_Conv2d_0b_3x3")
        b1 = self.reduce(b1, 256, f"{name}_Branch_1_Conv2d_1a_3x3")
        return layers.Concatenate(name=name)([b0, b1, self.pool(x, f"{name}_Branch_2_MaxPool_1a_3x3")])

    def mixed_7a(self, x: KerasTensor, name: str = "Mixed_7a") -> KerasTensor:
        b0 = self.conv(x, 256, (1, 1), f"{name}_Branch_0_Conv2d_0a_1x1")
        b0 = self.reduce(b0, 384, f"{name}_Branch_0_Conv2d_1a_3x3")
        b1 = self.conv(x, 256, (1, 1), f"{name}_Branch_1_Conv2d_0a_1x1")
        b1 = self.reduce(b1, 256, f"{name}_Branch_1_Conv2d_1a_3x3")
        b2 = self.conv(x, 256, (1, 1), f"{name}_Branch_2_Conv2d_0a_1x1")
        b2 = self.conv(b2, 256, (3, 3), f"{name}_Branch_2_Conv2d_0b_3x3")
        b2 = self.reduce(b2, 256, f"{name}_Branch_2_Conv2d_1a_3x3")
        return layers.Concatenate(name=name)([b0, b1, b2, self.pool(x, f"{name}_Branch_3_MaxPool_1a_3x3")])


def _residual(x: KerasTensor, branches: list[KerasTensor], scale: float, name: str, *, activate: bool) -> KerasTensor:
    mixed = layers.Concatenate(name=f"{name}_Concatenate")(branches)
    mixed = layers.Conv2D(x.shape[-1], 1, name=f"{name}_Conv2d_1x1")(mixed)
    mixed = layers.Rescaling(scale, name=f"{name}_Scale")(mixed)
    x = layers.Add(name=f"{name}_Add")([x, mixed])
    return layers.Activation("relu", name=f"{name}_Activation")(x) if activate else x


def inception_resnet_v1(
    embedding_size: int = 512,
    width: float = 1.0,
    input_side: int | None = 160,
    dropout: float = 0.0,
    folded: bool = False,  # noqa: FBT001, FBT002 - also set from a manifest
    averaged: int = 1,
    name: str = "inception_resnet_v1",
) -> keras.Model:
    """Build the network that maps standardized crops to embeddings.

    Args:
        embedding_size: the length D of the embedding. Published FaceNet models have 512 and 128.
        width: the multiplier of every channel count except the embedding's. Channel counts are rounded to a multiple
            of 8. With 1.0 and D = 512 the model has 23.50 M parameters.
        input_side: the side of the square input in pixels, after averaging at least 75 so that no stage is empty. None
            accepts any side, which progressive training needs.
        dropout: the share of pooled features that is dropped in training, before the bottleneck.
        folded: replace the batch normalizations by biases of the convolutions. See `fold`.
        averaged: the network first averages the crop over blocks of this many pixels squared, and its layers see these
            averages. A verifier for noisy crops does so: noise is the smaller the more is averaged.
        name: the name of the model.

    Returns:
        A model from float32 (N, side, side, 3), already standardized, to float32 embeddings (N, D). The embeddings are
        *not* L2-normalized: the last layer is ``Bottleneck_BatchNorm`` (or ``Bottleneck`` if folded).

    Raises:
        ValueError: a size is out of range.
    """
    if embedding_size < 1 or width <= 0 or averaged < 1 or (input_side is not None and input_side < 75 * averaged):
        raise ValueError(
            f"embedding_size={embedding_size}, width={width}, averaged={averaged}, input_side={input_side}: "
            "they must be at least 1, above 0, at least 1 and at least 75 times that"
        )

    of = _Layers(width, folded)
    inputs = keras.Input((input_side, input_side, 3), name="input")
    x = inputs if averaged == 1 else layers.AveragePooling2D(averaged, name="Averaged")(inputs)
    x = of.stem(x)
    for i in range(1, 6):
        x = of.block35(x, f"Block35_{i}")
    x = of.mixed_6a(x)
    for i in range(1, 11):
        x = of.asymmetric_block(x, 128, 7, 0.10, f"Block17_{i}")
    x = of.mixed_7a(x)
    for i in range(1, 6):
        x = of.asymmetric_block(x, 192, 3, 0.20, f"Block8_{i}")
    x = of.asymmetric_block(x, 192, 3, 1.0, "Block8_6", activate=False)
    x = layers.GlobalAveragePooling2D(name="AvgPool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="Dropout")(x)
    x = layers.Dense(embedding_size, use_bias=folded, name="Bottleneck")(x)
    return keras.Model(inputs, of.normalize(x, "Bottleneck"), name=name)
