"""JPEG compression (Dziugaite et al. 2016, Das et al. 2017), differentiable by straight-through rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.defenses.jpeg_steps import OnnxSteps, Steps, TensorFlowSteps
from toolkit.parameters import check, number


@dataclass(frozen=True)
class Jpeg:
    """Compresses crops as 8-bit JPEG images and decompresses them.

    `quality` is from 5 to 95. `subsampling` selects 4:2:0, otherwise 4:4:4. The NumPy form uses OpenCV's codec,
    libjpeg-turbo. The TensorFlow and ONNX forms reproduce its integer arithmetic: JFIF colors, downsampling and
    upsampling of chroma, padding with the outermost pixel, and the accurate cosine transform (`islow`). All three forms
    give the same bits, unless a GPU computes float32 products in TF32. With 4:2:0, crops must have at least 5 columns,
    because libjpeg uses another upsampling filter for narrower images. The gradient replaces each rounding by the
    identity.
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
        """The smallest side of a crop. With subsampling, half of the columns must be more than 2."""
        return 5 if self.subsampling else 1

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode and decode 8-bit images with OpenCV."""
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
        """Run the steps of libjpeg. Each rounding has the gradient of the identity."""
        import tensorflow as tf

        # Slicing to a size that is known only at run time loses the static shape.
        return tf.ensure_shape(self._steps(TensorFlowSteps(), tf.convert_to_tensor(crops)), crops.shape)

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add the nodes of the same steps."""
        return str(self._steps(OnnxSteps(graph), value))

    def _steps(self, steps: Steps, crops: Any) -> Any:
        levels = steps.round(steps.clip(steps.multiply(crops, 255.0), 0.0, 255.0))
        colors = steps.floor(steps.colors(_RGB_TO_YCC, levels, _YCC_ROUNDING, crops))
        luma = _quantize(steps, steps.channels(colors, 0, 1), quantization_table(_LUMA, self.quality))
        chroma = steps.channels(colors, 1, 3)
        if self.subsampling:
            # The encoder pads the columns before it halves them. It pads the rows afterwards, except for an odd row.
            halves = steps.convolve(steps.pad(chroma, 4, 16), _HALVE, _HALVE_ROUNDING, stride=4)
            chroma = steps.crop(steps.unfold(steps.floor(halves), 2), crops, 2, columns=False)
        chroma = _quantize(steps, chroma, quantization_table(_CHROMA, self.quality))
        if self.subsampling:
            # The decoder removes the padding before it enlarges the chroma planes.
            framed = steps.frame(steps.crop(chroma, crops, 2, columns=True))
            chroma = steps.unfold(steps.floor(steps.convolve(framed, _DOUBLE, _DOUBLE_ROUNDING)), 2)
        luma, chroma = (steps.crop(plane, crops, 1, columns=True) for plane in (luma, chroma))
        tint = steps.floor(steps.colors(_CHROMA_TO_RGB, chroma, _RGB_ROUNDING, crops))
        return steps.divide(steps.clip(steps.add(tint, steps.shift(luma, 128.0)), 0.0, 255.0), 255.0)


def quantization_table(standard: NDArray[np.int64], quality: int) -> NDArray[np.int64]:
    """Scale a quantization table (8, 8) of the standard to libjpeg's `quality`, for baseline files."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((standard * percent + 50) // 100, 1, 255)


def _quantize(steps: Steps, planes: Any, table: NDArray[np.int64]) -> Any:
    """Pad planes with values around 0 to whole blocks, quantize their cosine transform, and transform them back."""
    squares = steps.fold(steps.pad(planes, 8, 8), 8)
    # As in libjpeg, two extra bits are kept between rows and columns, and the coefficients are scaled by eight.
    rows = _transform(steps, _DCT, steps.lines(squares), 11, vertical=False)
    coefficients = _transform(steps, _DCT, rows, 15, vertical=True)
    # The factor 1 + 2^-16 rounds ties away from zero and does not change the rounding of any other integer.
    quotients = steps.multiply(coefficients, ((1 + 2.0**-16) / (8 * table)).astype(np.float32)[..., None])
    restored = steps.multiply(steps.round(quotients), table.astype(np.float32)[..., None])
    columns = _transform(steps, _DCT.T, restored, 11, vertical=True)
    pixels = steps.clip(_transform(steps, _DCT.T, columns, 18, vertical=False), -128.0, 127.0)
    return steps.unfold(steps.squares(pixels, squares), 8)


def _transform(steps: Steps, matrix: NDArray[np.int64], lines: Any, bits: int, *, vertical: bool) -> Any:
    """Multiply integers by `matrix`, divide by 2^`bits`, and round with ties up.

    The inputs are below 2^13 and the sums up to 2^29. float32 cannot represent such sums exactly, so the result is
    computed from two sums with fewer bits.
    """
    coarse = np.rint(matrix / 128)
    fine = steps.transform((matrix / 128 - coarse).astype(np.float32), lines, vertical=vertical)
    carried = steps.floor(steps.shift(fine, 2.0 ** (bits - 8)))
    total = steps.add(steps.transform(coarse.astype(np.float32), lines, vertical=vertical), carried)
    return steps.floor(steps.multiply(total, 2.0 ** (7 - bits)))


def _dct() -> NDArray[np.int64]:
    """Return the matrix (frequency, pixel) of the cosine transform of 8 pixels, in units of 1/8192.

    It is sqrt(8) times the orthonormal transform. The entries are not the nearest integers. They are sums of the 12
    rounded constants of Loeffler, Ligtenberg and Moschytz 1989, as in libjpeg's `islow`. The second half of each row
    mirrors the first.
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

# JFIF's color matrices, rounded to multiples of 1/65,536 as in libjpeg. float32 represents all sums exactly. The sums
# are rounded with a floor. The offset of chroma is slightly below 0.5, so that 127.5 does not become 128. Luma and
# chroma are centered at 0 here.
_ONE = 1 << 16


def _weights(rows: list[list[float]]) -> NDArray[np.float32]:
    return (np.rint(np.array(rows) * _ONE) / _ONE).astype(np.float32)


_RGB_TO_YCC = _weights([[0.299, 0.587, 0.114], [-0.16874, -0.33126, 0.5], [0.5, -0.41869, -0.08131]])
_YCC_ROUNDING = np.array([0.5 - 128, 0.5 - 1 / _ONE, 0.5 - 1 / _ONE], np.float32)
_CHROMA_TO_RGB = _weights([[0.0, 1.402], [-0.34414, -0.71414], [1.772, 0.0]])
_RGB_ROUNDING = np.full(3, 0.5, np.float32)


def _by_plane(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a matrix that applies `matrix` to both chroma planes separately. The plane is the faster index."""
    return np.kron(matrix, np.eye(2, dtype=np.float32)).astype(np.float32)


def _halve() -> NDArray[np.float32]:
    """Return a kernel that computes means of 2 x 2 pixels, as channels (row, column, plane) of 4 x 4 pixels."""
    means = np.kron(np.eye(4), np.full(4, 0.25)).reshape(2, 2, 2, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return _by_plane(means.reshape(4, 16).astype(np.float32)).reshape(8, 4, 4, 2).transpose(0, 3, 1, 2)


def _double() -> NDArray[np.float32]:
    """Return a kernel that doubles rows and columns, as channels (row, column, plane).

    The weights are 3/4 for the nearer pixel and 1/4 for the farther one.
    """
    line = np.array([[1, 3, 0], [0, 3, 1]]) / 4
    return _by_plane(np.kron(line, line).astype(np.float32)).reshape(8, 3, 3, 2).transpose(0, 3, 1, 2)


# libjpeg alternates the rounding offset from column to column. The offsets are in the same order of channels.
_HALVE, _HALVE_ROUNDING = _halve(), np.tile(np.repeat([1 / 4, 2 / 4], 2), 2).astype(np.float32)
_DOUBLE, _DOUBLE_ROUNDING = _double(), np.tile(np.repeat([8 / 16, 7 / 16], 2), 2).astype(np.float32)


DEFENSE = Jpeg
