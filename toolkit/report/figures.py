"""Figures 3 to 5 of the paper, from the probes of an audit. They show attacked faces, which are personal data."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.audit.results.evidence import Evidence, Example
from toolkit.files import atomic_write, write_bytes
from toolkit.pixels import to_8bit
from toolkit.risk.findings import Picture

Image = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_GAP = 6
_CAPTION = 18


def write_figures(evidence: Evidence, folder: Path) -> list[Path]:
    """Write `figure3.png`, `figure4.png` and `figure5.png`, and return their paths.

    Raises:
        InputError: the folder cannot be written.
    """
    paths = [folder / f"figure{i}.png" for i in (3, 4, 5)]
    _write(paths[0], _row(evidence.corrected or {"probe": evidence.example.probe}))
    _write(paths[1], _figure_4(evidence.example))
    _figure_5(evidence.norms, paths[2])
    return paths


def pictures(evidence: Evidence) -> tuple[Picture, ...]:
    """Figures 3 and 4 for a report: attacked faces, their perturbations, and the same faces after each defense."""
    attacked = ", ".join(evidence.example.attacked) or "no attack"
    four = f"Bottom: the reference, the probe, and the probe after {attacked}. Top: the perturbations, amplified."
    found = [Picture(four, _png(_figure_4(evidence.example)))]
    if evidence.corrected:
        found.append(Picture("A probe with Gaussian noise, and after each defense.", _png(_row(evidence.corrected))))
    return tuple(found)


def _png(pixels: Pixels) -> bytes:
    _, coded = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))
    return bytes(coded)


def amplified(delta: Image) -> Image:
    """Make a perturbation visible: zero becomes gray, and the largest value becomes black or white."""
    return np.asarray(0.5 + 0.5 * delta / max(float(np.abs(delta).max()), 1e-6), np.float32)


def _figure_4(example: Example) -> Pixels:
    blank = np.ones_like(example.probe)
    deltas = {name: amplified(image - example.probe) for name, image in example.attacked.items()}
    # The bottom row has the captions. Blank names give the top row none.
    top = _row({"": blank, " ": blank, **{" " * (i + 2): delta for i, delta in enumerate(deltas.values())}})
    bottom = _row({"reference": example.reference, "probe": example.probe, **example.attacked})
    return np.concatenate([top[:-_CAPTION], bottom])


def _row(images: dict[str, Image]) -> Pixels:
    """Join images side by side with captions: (H, W, 3) uint8, RGB."""
    cells = []
    for name, image in images.items():
        height, width = image.shape[:2]
        cell = np.full((height + _CAPTION + _GAP, width + _GAP, 3), 255, np.uint8)
        cell[:height, :width] = to_8bit(image)
        cv2.putText(cell, name, (2, height + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(cell)
    return np.concatenate(cells, axis=1)


def _write(path: Path, pixels: Pixels) -> None:
    write_bytes(path, cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())


def _figure_5(norms: dict[tuple[str, str], NDArray[np.float64]], path: Path) -> None:
    from matplotlib.figure import Figure

    attacks = list(dict.fromkeys(attack for attack, _ in norms))
    figure = Figure(figsize=(3.2 * max(len(attacks), 1), 2.8), layout="constrained")
    for i, attack in enumerate(attacks):
        axes = figure.add_subplot(1, len(attacks), i + 1)
        shown = {profile: values for (name, profile), values in norms.items() if name == attack and len(values)}
        largest = max((float(v.max()) for v in shown.values()), default=1.0)
        for profile, values in shown.items():
            axes.hist(
                values, bins=list(np.linspace(0, largest, 21)), alpha=0.55, label=f"{profile} (n = {len(values)})"
            )
        axes.set_title(attack)
        axes.set_xlabel("L2 norm")
        if shown:
            axes.legend(fontsize=7)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=110)
