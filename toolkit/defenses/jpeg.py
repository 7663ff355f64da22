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

    The NumPy form is OpenCV's codec, libjpeg-turbo. The TensorFlow and ONNX forms do what it does, in its integers:
    JFIF colors, chroma halved and enlarged by its filters, padding by the outermost pixel, its accurate cosine
    transforms. All three give the same bits (where float32 products are float32: not with a GPU's TF32). With 4:2:0,
    crops must have 5 columns or more, because libjpeg enlarges narrower ones by another filter. The gradient takes each
    rounding for the identity.
    """

    name: ClassVar[str] = "jpeg"
    backward: ClassVar[Backward] = "straight-through"
    exact: ClassVar[bool] = True
    quality: int = number(75, 5, 95)
    subsampling: bool = True

    def __post_init__(self) -> None:
        check(self)

    @property
    def smallest_side(self) -> int:
        """So that half of the columns are more than 2."""
        return 5 if self.subsampling else 1

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
        levels = steps.round(steps.clip(steps.multiply(crops, 255.0), 0.0, 255.0))
        colors = steps.floor(steps.colors(_RGB_TO_YCC, levels, _YCC_ROUNDING, crops))
        luma = _quantize(steps, steps.channels(colors, 0, 1), quantization_table(_LUMA, self.quality))
        chroma = steps.channels(colors, 1, 3)
        if self.subsampling:
            # The encoder pads columns before it halves them, and rows (except for an odd one) after.
            halves = steps.convolve(steps.pad(chroma, 4, 16), _HALVE, _HALVE_ROUNDING, stride=4)
            chroma = steps.crop(steps.unfold(steps.floor(halves), 2), crops, 2, columns=False)
        chroma = _quantize(steps, chroma, quantization_table(_CHROMA, self.quality))
        if self.subsampling:
            # The decoder knows nothing of the padding.
            framed = steps.frame(steps.crop(chroma, crops, 2, columns=True))
            chroma = steps.unfold(steps.floor(steps.convolve(framed, _DOUBLE, _DOUBLE_ROUNDING)), 2)
        luma, chroma = (steps.crop(plane, crops, 1, columns=True) for plane in (luma, chroma))
        tint = steps.floor(steps.colors(_CHROMA_TO_RGB, chroma, _RGB_ROUNDING, crops))
        return steps.divide(steps.clip(steps.add(tint, steps.shift(luma, 128.0)), 0.0, 255.0), 255.0)


def quantization_table(standard: NDArray[np.int64], quality: int) -> NDArray[np.int64]:
    """A standard's table (8, 8) at libjpeg's `quality`, for baseline files."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((standard * percent + 50) // 100, 1, 255)


def _quantize(steps: Steps, planes: Any, table: NDArray[np.int64]) -> Any:
    """Planes around 0, padded to whole blocks, to the quantized cosine transform and back."""
    squares = steps.fold(steps.pad(planes, 8, 8), 8)
    # Two more bits are kept between rows and columns; the coefficients are eight times too large.
    rows = _transform(steps, _DCT, steps.lines(squares), 11, vertical=False)
    coefficients = _transform(steps, _DCT, rows, 15, vertical=True)
    # A hair more than the quotient sends ties away from zero and moves no other integer over an edge.
    quotients = steps.multiply(coefficients, ((1 + 2.0**-16) / (8 * table)).astype(np.float32)[..., None])
    restored = steps.multiply(steps.round(quotients), table.astype(np.float32)[..., None])
    columns = _transform(steps, _DCT.T, restored, 11, vertical=True)
    pixels = steps.clip(_transform(steps, _DCT.T, columns, 18, vertical=False), -128.0, 127.0)
    return steps.unfold(steps.squares(pixels, squares), 8)


def _transform(steps: Steps, matrix: NDArray[np.int64], lines: Any, bits: int, *, vertical: bool) -> Any:
    """`matrix` times integers, in 2^`bits`ths, rounded with ties up.

    The inputs are below 2^13 and the sums up to 2^29, which float32 does not hold: hence two sums of fewer bits.
    """
    coarse = np.rint(matrix / 128)
    fine = steps.transform((matrix / 128 - coarse).astype(np.float32), lines, vertical=vertical)
    carried = steps.floor(steps.shift(fine, 2.0 ** (bits - 8)))
    total = steps.add(steps.transform(coarse.astype(np.float32), lines, vertical=vertical), carried)
    return steps.floor(steps.multiply(total, 2.0 ** (7 - bits)))


def _dct() -> NDArray[np.int64]:
    """The cosine transform of a line of 8 pixels in 8192ths, sqrt(8) times the orthonormal one: (frequency, pixel).

    Not the nearest integers: they are sums of the 12 rounded constants of Loeffler, Ligtenberg and Moschytz 1989, which
    is how libjpeg's `islow` multiplies; the other half mirrors this one.
    """
    half = np.array(
        [
            [8192, 8192, 8192, 8192],
            [11363, 9633, 6437, 2260],
            [10703, 4433, -4433, -10703],
            [9633, -2259, -11362, -6436],
            [8192, -8192, -8192, 8192],
            [6437, -11362, 2261, 9633],
            [4433, -10704, 10704, -4433],
            [2260, -6436, 9633, -11363],
        ]
    )
    sign = np.resize([[1], [-1]], (8, 1))
    return np.hstack([half, sign * half[:, ::-1]])


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
# behind them rounds (chroma a hair lower, so that no 127.5 becomes 128). Luma and chroma are around 0 here.
_ONE = 1 << 16


def _weights(rows: list[list[float]]) -> NDArray[np.float32]:
    return (np.rint(np.array(rows) * _ONE) / _ONE).astype(np.float32)


_RGB_TO_YCC = _weights([[0.299, 0.587, 0.114], [-0.16874, -0.33126, 0.5], [0.5, -0.41869, -0.08131]])
_YCC_ROUNDING = np.array([0.5 - 128, 0.5 - 1 / _ONE, 0.5 - 1 / _ONE], np.float32)
_CHROMA_TO_RGB = _weights([[0.0, 1.402], [-0.34414, -0.71414], [1.772, 0.0]])
_RGB_ROUNDING = np.full(3, 0.5, np.float32)


def _by_plane(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same matrix for both planes of chroma, none mixing with the other; planes are the faster index."""
    return np.kron(matrix, np.eye(2, dtype=np.float32)).astype(np.float32)


def _halve() -> NDArray[np.float32]:
    """Means of 2 x 2 pixels as channels (row, column, plane) of 4 x 4 pixels."""
    means = np.kron(np.eye(4), np.full(4, 0.25)).reshape(2, 2, 2, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return _by_plane(means.reshape(4, 16).astype(np.float32)).reshape(8, 4, 4, 2).transpose(0, 3, 1, 2)


def _double() -> NDArray[np.float32]:
    """Twice as many rows and columns as channels (row, column, plane): three parts the nearer, one the farther."""
    line = np.array([[1, 3, 0], [0, 3, 1]]) / 4
    return _by_plane(np.kron(line, line).astype(np.float32)).reshape(8, 3, 3, 2).transpose(0, 3, 1, 2)


# libjpeg's alternating rounding, column by column, in the same order of channels.
_HALVE, _HALVE_ROUNDING = _halve(), np.tile(np.repeat([1 / 4, 2 / 4], 2), 2).astype(np.float32)
_DOUBLE, _DOUBLE_ROUNDING = _double(), np.tile(np.repeat([8 / 16, 7 / 16], 2), 2).astype(np.float32)


DEFENSE = Jpeg
