"""Carrying a crop into another verifier's crop of the same photograph."""

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
    """What a verifier sees of a photograph: a crop of `width` x `height` pixels with the five points at `template`.

    Without a template the photograph is the crop.
    """

    width: int
    height: int
    template: tuple[tuple[float, float], ...] | None


def view_matrix(view: View, name: str, finder: LandmarkFinder) -> Matrix:
    """The (3, 3) similarity that takes pixels of photograph `name` to pixels of its crop, as `crops.crop_pairs` does.

    Raises:
        InputError: the photograph has no face.
    """
    if view.template is None:
        return np.eye(3)
    points = finder.points(name)
    matrix = None if points is None else similarity_transform(points, np.array(view.template))
    if matrix is None:
        raise InputError(f"{name}: no face found, so its crop has no place in the photograph")
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def between(source: View, target: View, name: str, finder: LandmarkFinder) -> Matrix:
    """The (3, 3) similarity from pixels of the source's crop of a photograph to pixels of the target's."""
    return view_matrix(target, name, finder) @ np.linalg.inv(view_matrix(source, name, finder))


def carry(crop: NDArray[np.uint8], matrix: Matrix, onto: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resample a crop (H, W, 3) into the frame of the target's own crop `onto` (H', W', 3), rounded to 8 bits.

    Bilinear and without a filter before it, as crops are made of photographs. Where `crop` does not reach, the target
    sees the photograph itself, which is `onto`.
    """
    size = (onto.shape[1], onto.shape[0])
    moved = cv2.warpAffine(crop, matrix[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.where(covered(crop, matrix, onto)[..., None], moved, onto).astype(np.uint8)


def covered(crop: NDArray[np.uint8], matrix: Matrix, onto: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels (H', W') of the target's crop lie within the carried crop."""
    size = (onto.shape[1], onto.shape[0])
    whole = np.full(crop.shape[:2], 255, np.uint8)
    return np.asarray(cv2.warpAffine(whole, matrix[:2], size, flags=cv2.INTER_LINEAR) == 255)
