"""What cameras do to faces: blur, noise, light, compression, distance and occlusion, each at five strengths.

The strengths are those of ImageNet-C (Hendrycks and Dietterich 2019, arXiv:1903.12261), which are for images of 224 x
224 pixels. Lengths and noise are scaled to the crop: a blur of 4 pixels at 224 is one of 2 pixels at 112, and noise has
the standard deviation that it has left after averaging 224 pixels down to 112. Brightness, contrast, low resolution and
the quality of JPEG have no length, and stay as they are. Occlusion is not in ImageNet-C: its strengths are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.pixels import Images, to_8bit, to_unit

Image = NDArray[np.float32]
STRENGTHS = 5
_SIDE = 224
# Points per pixel and axis at which a disk is sampled.
_POINTS = 16


@dataclass(frozen=True)
class Corruption:
    """A corruption.

    Attributes:
        name: its name.
        unit: what its values mean, in words.
        values: the value of each strength, mildest first.
        apply: function from an image (H, W, 3), a value and a random number generator to an image, which may leave the
            range [0, 1].
    """

    name: str
    unit: str
    values: tuple[float, float, float, float, float]
    apply: Callable[[Image, float, np.random.Generator], Image]


def corrupt(corruption: Corruption, images: Images, strength: int, generators: Sequence[np.random.Generator]) -> Images:
    """Corrupt images.

    Args:
        corruption: the corruption.
        images: (N, H, W, 3), RGB, float32 in [0, 1].
        strength: from 1 to `STRENGTHS`.
        generators: a random number generator for each image.

    Returns:
        (N, H, W, 3), float32 in [0, 1].
    """
    value = corruption.values[strength - 1]
    found = [corruption.apply(image, value, rng) for image, rng in zip(images, generators, strict=True)]
    return np.clip(np.stack(found), 0, 1).astype(np.float32)


def _scale(image: Image) -> float:
    """The size of an image relative to one of 224 x 224 pixels."""
    return float(np.sqrt(image.shape[0] * image.shape[1])) / _SIDE


def disk(radius: float) -> NDArray[np.float64]:
    """The share of each pixel that a disk around the middle one covers, divided by the sum of these shares."""
    reach = int(np.ceil(radius))
    points = (np.arange((2 * reach + 1) * _POINTS) + 0.5) / _POINTS - reach - 0.5
    inside = points[:, None] ** 2 + points[None] ** 2 <= radius**2
    shares = inside.reshape(2 * reach + 1, _POINTS, 2 * reach + 1, _POINTS).mean((1, 3))
    return np.asarray(shares / shares.sum(), np.float64)


def _blur(image: Image, value: float, _: np.random.Generator) -> Image:
    blurred = cv2.filter2D(image, -1, disk(value * _scale(image)), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)


def _shot(image: Image, value: float, rng: np.random.Generator) -> Image:
    photons = value / _scale(image) ** 2
    return (rng.poisson(image * photons) / photons).astype(np.float32)


def _sensor(image: Image, value: float, rng: np.random.Generator) -> Image:
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(value * _scale(image)) * noise


def _brightness(image: Image, value: float, _: np.random.Generator) -> Image:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] + value, 0, 1)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def _contrast(image: Image, value: float, _: np.random.Generator) -> Image:
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * np.float32(value) + mean


def _jpeg(image: Image, value: float, _: np.random.Generator) -> Image:
    bgr = np.ascontiguousarray(to_8bit(image[None])[0, ..., ::-1])
    coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(value)])[1]
    return to_unit(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


def _resolution(image: Image, value: float, _: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    small = (max(1, round(width * value)), max(1, round(height * value)))
    far = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(far, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _occlusion(image: Image, value: float, rng: np.random.Generator) -> Image:
    sides = [max(1, round(float(side * np.sqrt(value)))) for side in image.shape[:2]]
    top, left = (int(rng.integers(0, whole - side + 1)) for whole, side in zip(image.shape[:2], sides, strict=True))
    covered = image.copy()
    covered[top : top + sides[0], left : left + sides[1]] = 0.5
    return covered


CORRUPTIONS = (
    Corruption("blur", "radius of defocus, in pixels at 224", (3, 4, 6, 8, 10), _blur),
    Corruption("shot", "photons of a white pixel at 224", (60, 25, 12, 5, 3), _shot),
    Corruption("noise", "standard deviation at 224", (0.08, 0.12, 0.18, 0.26, 0.38), _sensor),
    Corruption("brightness", "added to the HSV value", (0.1, 0.2, 0.3, 0.4, 0.5), _brightness),
    Corruption("contrast", "factor", (0.4, 0.3, 0.2, 0.1, 0.05), _contrast),
    Corruption("jpeg", "quality", (25, 18, 15, 10, 7), _jpeg),
    Corruption("resolution", "factor of each side", (0.6, 0.5, 0.4, 0.3, 0.25), _resolution),
    Corruption("occlusion", "share of the area", (0.05, 0.1, 0.15, 0.2, 0.3), _occlusion),
)
