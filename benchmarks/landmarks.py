"""Where the landmarks lie on average in FaceNet's crops, which are MTCNN's boxes and not aligned by landmarks.

    python benchmarks/landmarks.py ../shared/lfw/images

FaceNet's scripts add a margin of 44 pixels to the box, resize it to 182 pixels, and take the middle 160. A similarity
transform to these average places is the nearest that a template can come.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from toolkit.faces.detection import PARTS
from toolkit.faces.images import read_image
from toolkit.quiet import import_tensorflow

MARGIN, WHOLE, CROP = 44, 182, 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder of photographs, searched with its subfolders")
    parser.add_argument("--every", type=int, default=60, help="take every so many-th photograph")
    args = parser.parse_args()
    import_tensorflow()
    from mtcnn import MTCNN

    detector, places = MTCNN(), []
    for path in sorted(args.images.rglob("*.jpg"))[:: args.every]:
        faces = detector.detect_faces(read_image(path))
        if len(faces) != 1:
            continue
        x, y, width, height = faces[0]["box"]
        points = np.array([faces[0]["keypoints"][part] for part in PARTS], np.float64)
        corner, size = (x - MARGIN / 2, y - MARGIN / 2), (width + MARGIN, height + MARGIN)
        places.append((points - corner) / size * WHOLE - (WHOLE - CROP) / 2)
    mean, spread = np.mean(places, 0), np.std(places, 0)
    sys.stdout.write(f"{len(places)} faces\n")
    for part, (x, y), (dx, dy) in zip(PARTS, mean, spread, strict=True):
        sys.stdout.write(f"{part:12} {x:6.1f} {y:6.1f}   standard deviation {dx:4.1f} {dy:4.1f}\n")


if __name__ == "__main__":
    main()
