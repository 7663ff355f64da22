"""A small world whose truth is known: people of four gray squares, and a verifier that holds or breaks.

The embedding has the mean of each quarter of a crop. Where the verifier holds, people differ by far more than the
policies' budget, and the threshold is wide. Where it is broken, people differ by a few gray levels, and the budget is
enough to evade recognition.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np

from tests.models import write_linear

SIDE = 16
# Gray levels of the squares, noise of the photographs in gray levels, and the threshold.
_HOLDS = ((60, 125, 190), 6, 0.15)
_BROKEN = ((100, 110, 120), 3, 0.015)


def write_people(folder: Path, *, broken: bool, people: int = 30, images: int = 4) -> Path:
    """Write `images` photographs of each person, one folder for each; returns the folder."""
    levels, noise, _ = _BROKEN if broken else _HOLDS
    rng = np.random.default_rng(0)
    every = list(itertools.product(levels, repeat=4))
    for number, place in enumerate(rng.permutation(len(every))[:people]):
        (folder / f"person-{number:02}").mkdir(parents=True)
        face = np.kron(np.reshape(every[place], (2, 2)), np.ones((SIDE // 2, SIDE // 2)))[..., None]
        for i in range(images):
            noisy = np.clip(face + rng.normal(0, noise, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"person-{number:02}" / f"{i}.png"), noisy)
    return folder


def write_verifier(folder: Path, *, broken: bool) -> Path:
    """Write the verifier, with its manifest; returns the ONNX file."""
    folder.mkdir(parents=True, exist_ok=True)
    half, size = SIDE // 2, SIDE * SIDE * 3
    weights = np.zeros((4, SIDE, SIDE, 3), np.float32)
    for quarter in range(4):
        rows, columns = (slice(k * half, (k + 1) * half) for k in divmod(quarter, 2))
        weights[quarter, rows, columns] = 4 / size
    threshold = (_BROKEN if broken else _HOLDS)[2]
    return write_linear(folder, weights=weights.reshape(4, -1).T, side=SIDE, threshold=threshold)
