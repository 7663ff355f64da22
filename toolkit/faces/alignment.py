"""Alignment of faces: five landmarks, from a file or from MTCNN, and the similarity that takes them to a template."""

from __future__ import annotations

import csv
import hashlib
import io
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
from toolkit.files import write_bytes

Points = NDArray[np.float64]

PARTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_DETECTOR = "mtcnn-1"
_LARGEST_FILE = 256 << 20
_DETECTED_SIDE = 1024


def similarity_transform(points: Points, template: Points) -> Points | None:
    """Least-median similarity (2, 3) that takes `points` (5, 2) to `template` (5, 2); None where there is none.

    Least median of squares, so that one badly placed landmark does not turn the crop.
    """
    matrix, _ = cv2.estimateAffinePartial2D(
        np.asarray(points, np.float64), np.asarray(template, np.float64), method=cv2.LMEDS
    )
    return None if matrix is None else np.asarray(matrix, np.float64)


def read_landmarks(path: Path) -> dict[str, Points | None]:
    """Landmarks by image name from a CSV with the columns image, confidence and x and y of the five `PARTS`.

    Points are (5, 2) in pixels of the image; None where the confidence is 0, which means that no face was found.

    Raises:
        InputError: the file cannot be read, or a line is broken.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= _LARGEST_FILE else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if size > _LARGEST_FILE:
        raise InputError(f"{path}: larger than {_LARGEST_FILE >> 20} MB; this is no list of landmarks")
    landmarks: dict[str, Points | None] = {}
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in rows:
            points = np.array([[float(row[f"{part}_{axis}"]) for axis in "xy"] for part in PARTS])
            confidence = float(row["confidence"])
            if not np.isfinite(points).all() or not math.isfinite(confidence):
                raise ValueError("a number is not finite")  # noqa: TRY301
            landmarks[row["image"]] = points if confidence > 0 else None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}:{rows.line_num}: is not a line of landmarks ({error})") from error
    return landmarks


def default_cache() -> Path:
    """Where detected landmarks are kept: $SIXPIXELS_CACHE, or sixpixels in the user's cache folder."""
    base = os.environ.get("SIXPIXELS_CACHE")
    return Path(base) if base else Path.home() / ".cache" / "sixpixels"


class LandmarkFinder:
    """Finds the five points of the faces of a pair set.

    From `landmarks.csv` in the set's root or in the folder above it, if there is one; what it does not name is
    found by MTCNN (Zhang et al. 2016), whose answers are kept on disk under the hash of the image.
    """

    def __init__(self, root: Path, cache: Path | None = None) -> None:
        """`root` is the pair set's; `cache` defaults to `default_cache`."""
        self._root = root
        self._cache = (cache or default_cache()) / "landmarks"
        self._detector: Any = None
        self._known: dict[str, Points | None] = {}
        for path in (root / "landmarks.csv", root.parent / "landmarks.csv"):
            if path.is_file():
                self._known = read_landmarks(path)
                break

    def points(self, name: str) -> Points | None:
        """The (5, 2) points of image `name` in its pixels, or None where no face is found.

        Raises:
            InputError: the image cannot be read.
            UnavailableError: a face must be detected, and MTCNN is not installed.
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
            stored = json.loads(cached.read_text())["points"]
            points = None if stored is None else np.array(stored, np.float64).reshape(5, 2)
            if points is not None and not np.isfinite(points).all():
                raise ValueError  # noqa: TRY301 - damaged like any other
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: detected anew
            points = self._detect(image)
            content = {"points": None if points is None else points.tolist()}
            write_bytes(cached, json.dumps(content).encode())
        self._known[name] = points
        return points

    def _detect(self, path: Path) -> Points | None:
        """MTCNN; of several faces the one that is largest for its distance from the image's center."""
        if self._detector is None:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            try:
                from mtcnn import MTCNN
            except ImportError as error:
                raise UnavailableError(
                    f"{path}: a face must be found, which needs MTCNN; "
                    'pip install "sixpixels[tensorflow]", or put a landmarks.csv beside the pairs'
                ) from error
            self._detector = MTCNN()
        image = read_image(path)
        scale = min(1.0, _DETECTED_SIDE / max(image.shape))
        if scale < 1:  # the pyramid of a huge image would take gigabytes
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
