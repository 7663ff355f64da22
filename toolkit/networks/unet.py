"""The U-Net of Noise2Noise (Lehtinen et al. 2018, arXiv:1803.04189, appendix): the paper's "Noise2Clean" network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf
from keras import layers

if TYPE_CHECKING:
    from keras import KerasTensor

# Five pooling layers halve the sides. `padding.on_any_side` pads other sizes to a multiple of this.
MULTIPLE = 32


class Doubling(layers.Layer):
    """Nearest-neighbor upsampling by 2. Unlike Keras's own layer, it is exported without shape computations."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Upsample (N, H, W, C) to (N, 2 H, 2 W, C)."""
        return tf.nn.depth_to_space(tf.concat([x] * 4, axis=-1), 2)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape: height and width are doubled if they are known."""
        n, height, width, c = shape
        return n, height and 2 * height, width and 2 * width, c


def unet(width: float = 1.0, name: str = "unet") -> keras.Model:
    """Build the network.

    Args:
        width: the multiplier of every channel count. Channel counts are rounded to a multiple of 4. With 1.0 the model
            has 0.99 M parameters.
        name: the name of the model.

    Returns:
        A model from float32 (N, H, W, 3), RGB in [0, 1], to the denoised crops. H and W must be multiples of 32.
    """

    def channels(full_width: int) -> int:
        return max(4, round(full_width * width / 4) * 4)

    def conv(x: KerasTensor, filters: int, name: str) -> KerasTensor:
        x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=name)(x)
        return layers.LeakyReLU(0.1, name=f"{name}_Activation")(x)

    narrow, wide = channels(48), channels(96)
    inputs = keras.Input((None, None, 3), name="input")
    x = layers.Rescaling(1.0, [-0.5] * 3, name="Center")(inputs)
    skips = [x]
    x = conv(x, narrow, "enc_conv0")
    for level in range(1, 6):
        x = layers.MaxPooling2D(2, name=f"pool{level}")(conv(x, narrow, f"enc_conv{level}"))
        skips.append(x)
    x = conv(x, narrow, "enc_conv6")
    skips.pop()  # the deepest level is the decoder's input, not a skip connection
    for level in range(5, 0, -1):
        x = Doubling(name=f"up{level}")(x)
        x = layers.Concatenate(name=f"skip{level}")([x, skips.pop()])
        x = conv(x, wide if level > 1 else channels(64), f"dec_conv{level}a")
        x = conv(x, wide if level > 1 else channels(32), f"dec_conv{level}b")
    x = layers.Conv2D(3, 3, padding="same", name="dec_conv0")(x)
    return keras.Model(inputs, layers.Rescaling(1.0, [0.5] * 3, name="Restore")(x), name=name)
