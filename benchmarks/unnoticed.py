"""How large changes are that services make to photographs every day, and that nobody notices: a yardstick for budgets.

python benchmarks/unnoticed.py facenet-mini --pairs LFW --folds 7,8

A proxy, and no study with people: what an upload does to a photograph, and its viewers accept as the same photograph.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.verifiers.manifest import find_manifest

Image = NDArray[np.uint8]


def jpeg(quality: int) -> Callable[[Image], Image]:
    def change(image: Image) -> Image:
        _, coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]

    return change


def resized(image: Image) -> Image:
    """One pixel narrower and back."""
    height, width, _ = image.shape
    smaller = cv2.resize(image, (width - 1, height - 1), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(smaller, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


CHANGES: dict[str, Callable[[Image], Image]] = {
    "JPEG quality 95": jpeg(95),
    "JPEG quality 90": jpeg(90),
    "JPEG quality 75": jpeg(75),
    "one pixel smaller and back": resized,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier", help="whose crops are changed")
    parser.add_argument("--pairs", type=Path, help="by default the embedded faces")
    parser.add_argument("--folds")
    parser.add_argument("--limit", type=int, default=400)
    args = parser.parse_args()
    manifest = find_manifest(args.verifier)
    folds = [int(fold) for fold in args.folds.split(",")] if args.folds else None
    pairs = load_pairs(args.pairs or embedded_pairs(), limit=args.limit, folds=folds)
    spec, alignment = manifest.input, manifest.alignment
    images = crop_pairs(pairs, spec.width, spec.height, alignment.template if alignment else None).images[:]
    table = Table(title=f"{len(images)} crops of {spec.width} x {spec.height}, {pairs.source}: 10 %, median, 90 %")
    for column in ("change", "RMS in 1/255", "L2", "Linf in 1/255"):
        table.add_column(column, justify="left" if column == "change" else "right")
    for name, change in CHANGES.items():
        delta = np.stack([to_unit(change(image)) - to_unit(image) for image in images]).reshape(len(images), -1)
        norms = np.linalg.norm(delta, axis=1)
        columns = (255 * norms / np.sqrt(delta.shape[1]), norms, 255 * np.abs(delta).max(axis=1))
        table.add_row(name, *(", ".join(f"{q:.2f}" for q in np.quantile(c, (0.1, 0.5, 0.9))) for c in columns))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
