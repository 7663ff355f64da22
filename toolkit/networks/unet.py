"""The U-Net of Noise2Noise (Lehtinen et al. 2018, arXiv:1803.04189, appendix): the paper's "Noise2Clean" network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf
from keras import layers

if TYPE_CHECKING:
    from keras import KerasTensor


def multiple(*, width: float = 1.0, levels: int = 5, shuffle: int = 1) -> int:  # noqa: ARG001 - the network's arguments
    """Return the number that the sides must be multiples of. Each level halves them; `padding.on_any_side` pads."""
    return int(shuffle * 2**levels)


class Doubling(layers.Layer):
    """Nearest-neighbor upsampling by 2. Unlike Keras's own layer, it is exported without shape computations."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Upsample (N, H, W, C) to (N, 2 H, 2 W, C)."""
        return tf.nn.depth_to_space(tf.concat([x] * 4, axis=-1), 2)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape: height and width are doubled if they are known."""
        n, height, width, c = shape
        return n, height and 2 * height, width and 2 * width, c


class Gathering(layers.Layer):
    """Stacks the sub-images of every `factor`-th row and column as channels."""

    def __init__(self, factor: int, name: str) -> None:
        super().__init__(name=name)
        self.factor = factor

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map (N, factor H, factor W, C) to (N, H, W, factor**2 C)."""
        return tf.nn.space_to_depth(x, self.factor)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape."""
        n, height, width, c = shape
        by = self.factor
        return n, height and height // by, width and width // by, c and c * by**2


class Spreading(Gathering):
    """The inverse of `Gathering`."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map (N, H, W, factor**2 C) to (N, factor H, factor W, C)."""
        return tf.nn.depth_to_space(x, self.factor)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape."""
        n, height, width, c = shape
        by = self.factor
        return n, height and height * by, width and width * by, c and c // by**2


def unet(width: float = 1.0, levels: int = 5, shuffle: int = 1, name: str = "unet") -> keras.Model:
    """Build the network.

    Args:
        width: the multiplier of every channel count. Channel counts are rounded to a multiple of 4. With 1.0 the model
            has 0.99 M parameters.
        levels: how often the sides are halved.
        shuffle: the network works on this many sub-images in each direction, stacked as channels (FFDNet, Zhang et al.
            2018, arXiv:1710.04026, section III). With 2, it costs a quarter and loses nothing of the input.
        name: the name of the model.

    Returns:
        A model from float32 (N, H, W, 3), RGB in [0, 1], to the denoised crops. H and W must be multiples of
        shuffle * 2**levels.
    """

    def channels(full_width: int) -> int:
        return max(4, round(full_width * width / 4) * 4)

    def conv(x: KerasTensor, filters: int, name: str) -> KerasTensor:
        x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=name)(x)
        return layers.LeakyReLU(0.1, name=f"{name}_Activation")(x)

    narrow, wide = channels(48), channels(96)
    inputs = keras.Input((None, None, 3), name="input")
    x = layers.Rescaling(1.0, [-0.5] * 3, name="Center")(inputs)
    if shuffle > 1:
        x = Gathering(shuffle, name="gather")(x)
    skips = [x]
    x = conv(x, narrow, "enc_conv0")
    for level in range(1, levels + 1):
        x = layers.MaxPooling2D(2, name=f"pool{level}")(conv(x, narrow, f"enc_conv{level}"))
        skips.append(x)
    x = conv(x, narrow, f"enc_conv{levels + 1}")
    skips.pop()  # the deepest level is the decoder's input, not a skip connection
    for level in range(levels, 0, -1):
        x = Doubling(name=f"up{level}")(x)
        x = layers.Concatenate(name=f"skip{level}")([x, skips.pop()])
        x = conv(x, wide if level > 1 else channels(64), f"dec_conv{level}a")
        x = conv(x, wide if level > 1 else channels(32), f"dec_conv{level}b")
    x = layers.Conv2D(3 * shuffle**2, 3, padding="same", name="dec_conv0")(x)
    if shuffle > 1:
        x = Spreading(shuffle, name="spread")(x)
    return keras.Model(inputs, layers.Rescaling(1.0, [0.5] * 3, name="Restore")(x), name=name)
