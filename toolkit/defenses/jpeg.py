"""JPEG compression (Dziugaite et al. 2016, Das et al. 2017), differentiable by straight-through rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.jpeg_steps import OnnxSteps, Steps, TensorFlowSteps
from toolkit.defenses.parameters import check, number


@dataclass(frozen=True)
class Jpeg:
    """Rounds to 8 bits, compresses and decompresses; `quality` from 5 to 95, `subsampling` for 4:2:0 (else 4:4:4).

    The NumPy form is OpenCV's codec. The TensorFlow and ONNX forms follow libjpeg step by step (JFIF colors in its
    integers, its chroma filters, its padding by the outermost pixel), all but the fixed-point arithmetic of its
    cosine transforms. On faces they are 0.001 to 0.1 levels from OpenCV in the mean and at most one level at 98.6 %
    or more of the values; in a rare block, where a coefficient is on the edge between two steps, up to 17 levels were
    seen. (With 4:2:0, crops of at most 4 columns differ more: libjpeg then repeats chroma instead of smoothing it.)
    TensorFlow and ONNX agree with each other to 1e-6 but for such edges. The gradient takes each rounding for the
    identity.
    """

    name: ClassVar[str] = "jpeg"
    backward: ClassVar[Backward] = "straight-through"
    exact: ClassVar[bool] = False
    quality: int = number(75, 5, 95)
    subsampling: bool = True

    def __post_init__(self) -> None:
        check(self)

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """OpenCV's encoder and decoder, on 8-bit images."""
        return np.asarray([self._codec(crop) for crop in crops], np.float32).reshape(crops.shape)

    def _codec(self, crop: NDArray[np.float32]) -> NDArray[np.float32]:
        levels = np.rint(np.clip(crop * np.float32(255), 0, 255)).astype(np.uint8)
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if self.subsampling else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        _, data = cv2.imencode(".jpg", np.ascontiguousarray(levels[..., ::-1]), options)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if decoded is None:
            raise RuntimeError("OpenCV cannot read the JPEG that it wrote")
        return decoded[..., ::-1].astype(np.float32) / np.float32(255)

    def tensorflow(self, crops: Any) -> Any:
        """The steps of libjpeg, straight-through."""
        import tensorflow as tf

        # Cropping to a size that is known only at run time loses the static one.
        return tf.ensure_shape(self._steps(TensorFlowSteps(), tf.convert_to_tensor(crops)), crops.shape)

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """The same steps."""
        return str(self._steps(OnnxSteps(graph), value))

    def _steps(self, steps: Steps, crops: Any) -> Any:
        levels = steps.round(steps.clip(steps.affine(crops, 255.0), 0.0, 255.0))
        colors = steps.floor(steps.convolve(levels, _RGB_TO_YCC, _YCC_ROUNDING))
        luma = steps.affine(steps.channels(colors, 0, 1), 1.0, -128.0)
        luma = _quantize(steps, luma, 1, quantization_table(_LUMA, self.quality))
        chroma = steps.channels(colors, 1, 3)
        if self.subsampling:
            # The encoder pads columns before it halves them, and rows (except for an odd one) after.
            halves = steps.convolve(steps.pad(chroma, 4, 16), _HALVE, _HALVE_ROUNDING, stride=4)
            chroma = steps.crop(steps.unfold(steps.floor(halves), 2), crops, 2, columns=False)
        chroma = _quantize(steps, chroma, 2, quantization_table(_CHROMA, self.quality))
        if self.subsampling:
            # The decoder knows nothing of the padding.
            framed = steps.frame(steps.crop(chroma, crops, 2, columns=True))
            chroma = steps.unfold(steps.floor(steps.convolve(framed, _DOUBLE, _DOUBLE_ROUNDING)), 2)
        luma, chroma = (steps.crop(plane, crops, 1, columns=True) for plane in (luma, chroma))
        tint = steps.floor(steps.convolve(chroma, _CHROMA_TO_RGB, np.full(3, 0.5, np.float32)))
        return steps.affine(steps.clip(steps.affine(steps.add(tint, luma), 1.0, 128.0), 0.0, 255.0), 1 / 255)


def quantization_table(standard: NDArray[np.int64], quality: int) -> NDArray[np.int64]:
    """A standard's table (8, 8) at libjpeg's `quality`, for baseline files."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((standard * percent + 50) // 100, 1, 255)


def _quantize(steps: Steps, planes: Any, channels: int, table: NDArray[np.int64]) -> Any:
    """Planes around 0, padded to whole blocks, to the quantized cosine transform and back."""
    # Channels are ordered (coefficient, plane), as `unfold` wants them.
    forward = _by_plane(_DCT, channels).reshape(64 * channels, 8, 8, channels).transpose(0, 3, 1, 2)
    inverse = _by_plane(_DCT.T, channels)[..., None, None]
    zeros = np.zeros(64 * channels, np.float32)
    divisors = np.repeat(table.ravel(), channels).astype(np.float32)
    # libjpeg's transform gives integers, eight times too large.
    coefficients = steps.round(steps.convolve(steps.pad(planes, 8, 8), forward * np.float32(8), zeros, stride=8))
    quantized = steps.affine(steps.round_away(steps.divide(coefficients, 8 * divisors)), divisors)
    restored = steps.unfold(steps.convolve(quantized, inverse, zeros + np.float32(0.5)), 8)
    return steps.clip(steps.floor(restored), -128.0, 127.0)


def _by_plane(matrix: NDArray[np.float32], planes: int) -> NDArray[np.float32]:
    """The same matrix for each plane, none mixing with another; planes are the faster index."""
    return np.kron(matrix, np.eye(planes, dtype=np.float32)).astype(np.float32)


def _dct() -> NDArray[np.float32]:
    """The orthonormal cosine transform of 8 x 8 pixels: (coefficient, pixel), rows first in both."""
    frequency, position = np.mgrid[:8, :8]
    line = np.cos(np.pi * frequency * (2 * position + 1) / 16) * np.where(frequency == 0, np.sqrt(1 / 8), 0.5)
    return np.kron(line, line).astype(np.float32)


_DCT = _dct()

# ITU-T T.81, tables K.1 and K.2.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMA = np.full((8, 8), 99)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# JFIF's colors in 65,536ths, which is how libjpeg rounds them; float32 holds all sums without an error, and a floor
# behind them rounds (chroma a hair lower, so that no 127.5 becomes 128). Chroma is around 0 here.
_ONE = 1 << 16


def _weights(rows: list[list[float]]) -> NDArray[np.float32]:
    return (np.rint(np.array(rows) * _ONE) / _ONE).astype(np.float32)[..., None, None]


_RGB_TO_YCC = _weights([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
_YCC_ROUNDING = np.array([0.5, 0.5 - 1 / _ONE, 0.5 - 1 / _ONE], np.float32)
_CHROMA_TO_RGB = _weights([[0.0, 1.402], [-0.344136286, -0.714136286], [1.772, 0.0]])


def _halve() -> NDArray[np.float32]:
    """Means of 2 x 2 pixels as channels (row, column, plane) of 4 x 4 pixels."""
    means = np.kron(np.eye(4), np.full(4, 0.25)).reshape(2, 2, 2, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return _by_plane(means.reshape(4, 16).astype(np.float32), 2).reshape(8, 4, 4, 2).transpose(0, 3, 1, 2)


def _double() -> NDArray[np.float32]:
    """Twice as many rows and columns as channels (row, column, plane): three parts the nearer, one the farther."""
    line = np.array([[1, 3, 0], [0, 3, 1]]) / 4
    return _by_plane(np.kron(line, line).astype(np.float32), 2).reshape(8, 3, 3, 2).transpose(0, 3, 1, 2)


# libjpeg's alternating rounding, column by column, in the same order of channels.
_HALVE, _HALVE_ROUNDING = _halve(), np.tile(np.repeat([1 / 4, 2 / 4], 2), 2).astype(np.float32)
_DOUBLE, _DOUBLE_ROUNDING = _double(), np.tile(np.repeat([8 / 16, 7 / 16], 2), 2).astype(np.float32)


DEFENSE = Jpeg
