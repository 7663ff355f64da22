"""Crops: align every distinct image of a pair set once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, InsufficientError
from toolkit.faces.alignment import LandmarkFinder, similarity_transform
from toolkit.faces.images import read_image
from toolkit.faces.pairs import Pair, PairSet
from toolkit.faces.rows import Rows, gather_rows
from toolkit.text import listed

# So many images that cannot be used are named at once. More are no accident, and reading on takes long.
_MOST_REFUSED = 20


@dataclass(frozen=True)
class LeftOut:
    """A pair that cannot be used, and the reason."""

    pair: Pair
    reason: str


@dataclass(frozen=True)
class CropSet:
    """Aligned crops and their pairs.

    Attributes:
        images: (M, H, W, 3) uint8, RGB; in memory, or on disk for large pair sets.
        names: the names of the M images.
        pairs: the n usable pairs.
        index: (n, 2), the indices of each pair's probe and reference in `images`.
        left_out: the pairs in which no face was found. They are never replaced.
        template: the positions (x, y) of the five landmarks in a crop, in pixels; None if the images were crops
            already.
        gallery: (G,), the indices of the enrolled people's crops, for identification: every probe is compared with
            the whole gallery instead of the reference of its pair. None for ordinary pairs.
    """

    images: NDArray[np.uint8] | Rows
    names: tuple[str, ...]
    pairs: tuple[Pair, ...]
    index: NDArray[np.intp]
    left_out: tuple[LeftOut, ...]
    template: tuple[tuple[float, float], ...] | None = None
    gallery: NDArray[np.intp] | None = None


def crop_pairs(
    pairs: PairSet,
    width: int,
    height: int,
    template: tuple[tuple[float, float], ...] | None,
    finder: LandmarkFinder | None = None,
    progress: Callable[[int, int], None] | None = None,
    spill: Path | None = None,
) -> CropSet:
    """Read and align every distinct image of `pairs` once.

    Args:
        pairs: the pairs.
        width: the width of a crop in pixels.
        height: the height of a crop in pixels.
        template: the positions (x, y) of the five landmarks in a crop; None if the images are crops already.
        finder: finds the landmarks. The default is a finder for the pair set's root.
        progress: called with the number of images done and the total number of images.
        spill: a folder for a temporary file of the crops; None keeps the crops in memory.

    Raises:
        InputError: an image cannot be read, or there is no template and an image does not have the crop's size.
        InsufficientError: no pair is left.
    """
    names = list(dict.fromkeys(name for pair in pairs.pairs for name in (pair.probe, pair.reference)))
    finder = finder or LandmarkFinder(pairs.root)
    if template is not None:
        finder.look_ahead(names, progress)
    place: dict[str, int] = {}
    refused: list[InputError] = []

    def crops() -> Iterator[NDArray[np.uint8]]:
        yield np.empty((0, height, width, 3), np.uint8)
        for done, name in enumerate(names, 1):
            try:
                crop = _crop(pairs, name, width, height, template, finder)
            except InputError as error:
                refused.append(error)
                crop = None
                if len(refused) == _MOST_REFUSED:
                    break
            if crop is not None:
                place[name] = len(place)
                yield crop[None]
            if progress is not None:
                progress(done, len(names))

    images = gather_rows(crops(), spill)
    _check_readable(refused, pairs.source)
    kept = tuple(pair for pair in pairs.pairs if pair.probe in place and pair.reference in place)
    left_out = tuple(
        LeftOut(pair, f"no face found in {next(n for n in (pair.probe, pair.reference) if n not in place)}")
        for pair in pairs.pairs
        if pair.probe not in place or pair.reference not in place
    )
    if not kept:
        raise InsufficientError(f"{pairs.source}: no pair is left; {left_out[0].reason if left_out else 'none given'}")
    index = np.array([[place[pair.probe], place[pair.reference]] for pair in kept], np.intp)
    return CropSet(images, tuple(place), kept, index, left_out, template)


def _check_readable(refused: Sequence[InputError], source: str) -> None:
    """Raise InputError if images were refused, naming several of them at once."""
    if len(refused) == 1:
        raise refused[0]
    if refused:
        count = f"{len(refused)} or more" if len(refused) == _MOST_REFUSED else str(len(refused))
        raise InputError(f"{source}: {count} images cannot be used: {listed([str(error) for error in refused])}")


def _crop(
    pairs: PairSet,
    name: str,
    width: int,
    height: int,
    template: tuple[tuple[float, float], ...] | None,
    finder: LandmarkFinder,
) -> NDArray[np.uint8] | None:
    if template is None:
        image = read_image(pairs.root / name)
        if image.shape != (height, width, 3):
            raise InputError(
                f"{pairs.root / name}: is {image.shape[1]} x {image.shape[0]}, but the verifier takes crops of "
                f"{width} x {height}; add [alignment] to the manifest, or crop the images"
            )
        return image
    points = finder.points(name)
    matrix = None if points is None else similarity_transform(points, np.array(template))
    if matrix is None:
        return None
    image = read_image(pairs.root / name)
    crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(crop, np.uint8)
