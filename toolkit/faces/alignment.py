"""Face alignment: find five landmarks, and compute the similarity transform that maps them to a template.

The landmarks come from a file or from MTCNN.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, UnavailableError
from toolkit.faces.images import read_image
from toolkit.faces.lists import read_csv
from toolkit.files import write_bytes
from toolkit.plain import parse_json, read_limited
from toolkit.quiet import import_tensorflow

Points = NDArray[np.float64]

PARTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_DETECTOR = "mtcnn-1"
_LARGEST_CACHED = 1 << 16
_DETECTED_SIDE = 1024


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

    The landmarks come from `landmarks.csv` in the pair set's root or in its parent folder. MTCNN (Zhang et al. 2016)
    detects the landmarks of images that this file does not contain. Detections are cached on disk by the hash of the
    image.
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
        self._detector: Any = None
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
        if name in self._known:
            return self._known[name]
        image = self._root / name
        try:
            digest = hashlib.sha256(image.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{image}: cannot be read ({error.strerror})") from error
        cached = self._cache / f"{digest}-{_DETECTOR}.json"
        try:
            stored = parse_json(read_limited(cached, _LARGEST_CACHED), cached)["points"]
            points = None if stored is None else np.array(stored, np.float64).reshape(5, 2)
            if points is not None and not np.isfinite(points).all():
                raise ValueError  # noqa: TRY301 - treated like any other damage
        except (InputError, ValueError, KeyError, TypeError):  # the cached file is missing or damaged
            points = self._detect(image)
            content = {"points": None if points is None else points.tolist()}
            write_bytes(cached, json.dumps(content).encode())
        self._known[name] = points
        return points

    def _detect(self, path: Path) -> Points | None:
        """Detect landmarks (5, 2) with MTCNN. Return None if there is no face.

        If there are several faces, large faces near the center of the image are preferred.
        """
        if self._detector is None:
            try:
                import_tensorflow()
                from mtcnn import MTCNN
            except (ImportError, UnavailableError) as error:
                raise UnavailableError(
                    f"{path}: face detection needs MTCNN, which is not installed; "
                    'pip install "sixpixels[tensorflow]", or put a landmarks.csv beside the pairs'
                ) from error
            self._detector = MTCNN()
        image = read_image(path)
        scale = min(1.0, _DETECTED_SIDE / max(image.shape))
        if scale < 1:  # MTCNN's image pyramid would take gigabytes of memory for a huge image
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
        center = np.array(image.shape[1::-1]) / 2

        def prominence(face: dict[str, Any]) -> float:
            x, y, width, height = face["box"]
            offset = np.array([x + width / 2, y + height / 2]) - center
            return float(width * height - 2 * offset @ offset)

        faces = self._detector.detect_faces(image)
        if not faces:
            return None
        keypoints = max(faces, key=prominence)["keypoints"]
        return np.array([keypoints[part] for part in PARTS], np.float64) / scale
