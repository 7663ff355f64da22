"""Detection of faces with MTCNN (Zhang et al. 2016), cached on disk by the hash of the image.

As a program, it detects the faces of the images whose paths it reads, for `detect_together`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, UnavailableError
from toolkit.faces.images import read_image
from toolkit.files import write_bytes
from toolkit.plain import parse_json, read_limited
from toolkit.processes import start_module
from toolkit.quiet import import_tensorflow
from toolkit.threads import cores

Points = NDArray[np.float64]

PARTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_DETECTOR = "mtcnn-1"
_LARGEST_CACHED = 1 << 16
_DETECTED_SIDE = 1024
# Fewer images are detected sooner by one process than another one has loaded TensorFlow; each takes half a gigabyte.
_WORTH_A_PROCESS, _MOST_PROCESSES = 50, 8
_DONE = b"."


class Detector:
    """Detects the landmarks of the most prominent face in an image."""

    def __init__(self, cache: Path) -> None:
        """Keep detections in the folder `cache`. MTCNN is loaded when it is first needed."""
        self._cache = cache
        self._network: Any = None

    def known(self, image: Path) -> tuple[Points | None] | None:
        """Return the cached landmarks (5, 2) of an image, or None for no face, in a tuple; None if it is not cached.

        Raises:
            InputError: the image cannot be read.
        """
        return self._stored(self._place(image))

    def points(self, image: Path) -> Points | None:
        """Return the landmarks (5, 2) of an image in its pixels (x, y); None if it has no face.

        Raises:
            InputError: the image cannot be read.
            UnavailableError: MTCNN is not installed.
        """
        cached = self._place(image)
        known = self._stored(cached)
        if known is not None:
            return known[0]
        points = self._detect(image)
        content = {"points": None if points is None else points.tolist()}
        write_bytes(cached, json.dumps(content).encode())
        return points

    def _stored(self, cached: Path) -> tuple[Points | None] | None:
        try:
            stored = parse_json(read_limited(cached, _LARGEST_CACHED), cached)["points"]
            points = None if stored is None else np.array(stored, np.float64).reshape(5, 2)
            if points is not None and not np.isfinite(points).all():
                raise ValueError  # noqa: TRY301 - treated like any other damage
        except (InputError, ValueError, KeyError, TypeError):  # the cached file is missing or damaged
            return None
        return (points,)

    def _place(self, image: Path) -> Path:
        try:
            digest = hashlib.sha256(image.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{image}: cannot be read ({error.strerror})") from error
        return self._cache / f"{digest}-{_DETECTOR}.json"

    def _detect(self, path: Path) -> Points | None:
        """Detect landmarks. If there are several faces, large faces near the center of the image are preferred."""
        if self._network is None:
            try:
                import_tensorflow()
                from mtcnn import MTCNN
            except (ImportError, UnavailableError) as error:
                raise UnavailableError(
                    f"{path}: face detection needs MTCNN, which is not installed; "
                    'pip install "sixpixels[tensorflow]", or put a landmarks.csv beside the pairs'
                ) from error
            self._network = MTCNN()
        image = read_image(path)
        scale = min(1.0, _DETECTED_SIDE / max(image.shape))
        if scale < 1:  # MTCNN's image pyramid would take gigabytes of memory for a huge image
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
        center = np.array(image.shape[1::-1]) / 2

        def prominence(face: dict[str, Any]) -> float:
            x, y, width, height = face["box"]
            offset = np.array([x + width / 2, y + height / 2]) - center
            return float(width * height - 2 * offset @ offset)

        faces = self._network.detect_faces(image)
        if not faces:
            return None
        keypoints = max(faces, key=prominence)["keypoints"]
        return np.array([keypoints[part] for part in PARTS], np.float64) / scale


def detect_together(images: Sequence[Path], cache: Path, progress: Callable[[], object]) -> None:
    """Detect the faces of many images by several processes, into the cache.

    What a process cannot do is left out, and a few images are left out altogether: `Detector.points` does them later,
    or says why they cannot be done.

    Args:
        images: files whose landmarks are not cached.
        cache: the folder of the cache.
        progress: called after each image.
    """
    count = min(cores(), _MOST_PROCESSES, len(images) // _WORTH_A_PROCESS)
    if count < 2:
        return
    shares = [images[start::count] for start in range(count)]
    try:
        processes = [
            start_module("toolkit.faces.detection", str(cache.resolve()), stderr=subprocess.DEVNULL) for _ in shares
        ]
    except OSError:  # this process does it all
        return

    told = Lock()

    def follow(process: subprocess.Popen[bytes], share: Sequence[Path]) -> None:
        assert process.stdin is not None  # noqa: S101 - for mypy: the pipe was requested
        assert process.stdout is not None  # noqa: S101
        for image in share:
            try:
                process.stdin.write(json.dumps(str(image.resolve())).encode() + b"\n")
                process.stdin.flush()
            except OSError:
                return
            if process.stdout.read(1) != _DONE:
                return
            with told:
                progress()

    with ThreadPoolExecutor(count) as threads:
        try:
            for followed in [threads.submit(follow, *pair) for pair in zip(processes, shares, strict=True)]:
                followed.result()
        finally:
            for process in processes:
                process.kill()
    for process in processes:
        process.communicate()


def main() -> None:
    """Detect the faces of the images whose paths come in, one JSON text a line, until they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the process that asks may stop this one
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    detector = Detector(Path(sys.argv[1]))
    for line in sys.stdin.buffer:
        with contextlib.suppress(InputError):  # whoever needs the image says why it cannot be read
            detector.points(Path(parse_json(line, "the image")))
        answers.write(_DONE)


if __name__ == "__main__":
    main()
