"""Face alignment: find five landmarks, and compute the similarity transform that maps them to a template.

The landmarks come from a file or from MTCNN.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from toolkit.errors import InputError
from toolkit.faces.detection import PARTS, Detector, Points, detect_together
from toolkit.faces.lists import read_csv


def similarity_transform(points: Points, template: Points) -> Points | None:
    """Return the similarity transform (2, 3) that maps `points` (5, 2) to `template` (5, 2); None if there is none.

    The fit is least median of squares, so that one badly placed landmark does not rotate the crop.
    """
    matrix, _ = cv2.estimateAffinePartial2D(
        np.asarray(points, np.float64), np.asarray(template, np.float64), method=cv2.LMEDS
    )
    return None if matrix is None else np.asarray(matrix, np.float64)


def read_landmarks(path: Path) -> dict[str, Points | None]:
    """Read landmarks from a CSV file.

    The columns are `image`, `confidence`, and `PART_x` and `PART_y` for each of the five `PARTS`.

    Returns:
        Points (5, 2) in image pixels (x, y), by image name. The value is None if the confidence is 0, which means that
        no face was found.

    Raises:
        InputError: the file cannot be read, or a line is not valid.
    """
    landmarks: dict[str, Points | None] = {}
    rows = read_csv(path)
    columns = next(rows, (1, []))[1]
    for number, fields in rows:
        row = dict(zip(columns, fields, strict=False))
        try:
            points = np.array([[float(row[f"{part}_{axis}"]) for axis in "xy"] for part in PARTS])
            confidence, image = float(row["confidence"]), row["image"]
            if not np.isfinite(points).all() or not math.isfinite(confidence):
                raise ValueError("a number is not finite")  # noqa: TRY301
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}:{number}: is not a valid line of landmarks ({error})") from error
        landmarks[image] = points if confidence > 0 else None
    return landmarks


def default_cache() -> Path:
    """Return the folder that caches detected landmarks: $SIXPIXELS_CACHE, or ~/.cache/sixpixels."""
    base = os.environ.get("SIXPIXELS_CACHE")
    return Path(base) if base else Path.home() / ".cache" / "sixpixels"


class LandmarkFinder:
    """Finds the five landmarks of the faces in a pair set.

    The landmarks come from `landmarks.csv` in the pair set's root or in its parent folder. Those of images that this
    file does not contain are detected; see `detection`.
    """

    def __init__(self, root: Path, cache: Path | None = None) -> None:
        """Read the landmarks file, if there is one.

        Args:
            root: the folder of the pair set.
            cache: the folder for cached detections. The default is `default_cache()`.

        Raises:
            InputError: the landmarks file cannot be read.
        """
        self._root = root
        self._cache = (cache or default_cache()) / "landmarks"
        self._detector = Detector(self._cache)
        self._known: dict[str, Points | None] = {}
        for path in (root / "landmarks.csv", root.parent / "landmarks.csv"):
            if path.is_file():
                self._known = read_landmarks(path)
                break

    def points(self, name: str) -> Points | None:
        """Return the landmarks (5, 2) of image `name` in its pixels (x, y); None if it has no face.

        Raises:
            InputError: the image cannot be read.
            UnavailableError: the face must be detected, but MTCNN is not installed.
        """
        if name not in self._known:
            self._known[name] = self._detector.points(self._root / name)
        return self._known[name]

    def look_ahead(self, names: Sequence[str], progress: Callable[[int, int], None] | None = None) -> None:
        """Detect what must be detected of many images, by several processes; `points` then finds it.

        Args:
            names: the images.
            progress: called with the number of images done and the number of images to detect.
        """
        missing = [self._root / name for name in names if name not in self._known and not self._is_cached(name)]
        done = count(1)
        detect_together(missing, self._cache, lambda: None if progress is None else progress(next(done), len(missing)))

    def _is_cached(self, name: str) -> bool:
        try:
            known = self._detector.known(self._root / name)
        except InputError:  # `points` says why
            return True
        if known is not None:
            self._known[name] = known[0]
        return known is not None
