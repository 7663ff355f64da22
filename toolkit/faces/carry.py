"""Transfer of a crop into another verifier's crop of the same photograph."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.faces.alignment import LandmarkFinder, similarity_transform

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """The part of a photograph that a verifier sees.

    Attributes:
        width, height: the size of the crop in pixels.
        template: the positions (x, y) of the five landmarks in the crop, in pixels; None if the photograph itself is
            the crop.
    """

    width: int
    height: int
    template: tuple[tuple[float, float], ...] | None


def view_matrix(view: View, name: str, finder: LandmarkFinder) -> Matrix:
    """Return the similarity transform (3, 3) from pixels of photograph `name` to pixels of its crop.

    It is the same transform that `crops.crop_pairs` uses.

    Raises:
        InputError: the photograph has no face.
    """
    if view.template is None:
        return np.eye(3)
    points = finder.points(name)
    matrix = None if points is None else similarity_transform(points, np.array(view.template))
    if matrix is None:
        raise InputError(f"{name}: no face found, so the position of the crop in the photograph is unknown")
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def between(source: View, target: View, name: str, finder: LandmarkFinder) -> Matrix:
    """Return the similarity transform (3, 3) from pixels of the source's crop to pixels of the target's crop.

    Raises:
        InputError: the photograph has no face.
    """
    return view_matrix(target, name, finder) @ np.linalg.inv(view_matrix(source, name, finder))


def carry(crop: NDArray[np.uint8], matrix: Matrix, onto: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resample a crop into the target's crop of the same photograph, rounded to 8 bits.

    The interpolation is bilinear without a low-pass filter, as for crops of photographs. Outside `crop`, the result
    keeps the pixels of `onto`, because the target sees the original photograph there.

    Args:
        crop: (H, W, 3), the source's crop.
        matrix: (3, 3), from pixels of `crop` to pixels of `onto`. See `between`.
        onto: (H', W', 3), the target's own crop.

    Returns:
        (H', W', 3) uint8.
    """
    size = (onto.shape[1], onto.shape[0])
    moved = cv2.warpAffine(crop, matrix[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.where(covered(crop, matrix, onto)[..., None], moved, onto).astype(np.uint8)


def covered(crop: NDArray[np.uint8], matrix: Matrix, onto: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels (H', W') of the target's crop are inside the source's crop. See `carry`."""
    size = (onto.shape[1], onto.shape[0])
    whole = np.full(crop.shape[:2], 255, np.uint8)
    return np.asarray(cv2.warpAffine(whole, matrix[:2], size, flags=cv2.INTER_LINEAR) == 255)
