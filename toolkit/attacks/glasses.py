"""A printed pair of glasses, or a patch of another form (Sharif et al. 2016, "Accessorize to a Crime", section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from toolkit.attacks.base import (
    Bools,
    Crafted,
    Gradients,
    Images,
    Needs,
    Task,
    ascent,
    margins,
    reached,
    to_8bit,
    to_unit,
)
from toolkit.defenses.parameters import number
from toolkit.errors import InputError
from toolkit.faces.images import read_image

# Reflectances that ink on paper reaches: no printer gives pure black or white. An assumption, not a measurement.
LEVELS = to_unit(np.array([26, 128, 230], np.uint8))
_LATTICE = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), axis=-1).reshape(-1, 3)
# Of the distance between the eyes: half a lens's width and height, and the frame's thickness.
_LENS, _FRAME = (0.38, 0.28), 0.09
# Cells of one color across a crop's width: what is finer does not survive print and camera.
_CELLS = 80
# Different colors of a palette that is given as an image.
_MOST_COLORS = 4096


@dataclass(frozen=True)
class Glasses:
    """Colors the frame of a pair of glasses, and nothing else, with a printable palette.

    The frame lies on the eyes of the aligned crop and ends at its sides; `mask`, an image of the crop's size, puts
    another form in its place: what is bright in it is colored. There is no bound on the colors: they are those of a
    lattice of three reflectances for each channel, or of the image `palette`, for instance a photograph of a printed
    chart, the same over a cell of about an eightieth of the crop.
    Sign steps with momentum move colors that are free; the probe shows the nearest colors of the palette, and gradients
    go straight through that choice. A pair is done with its first success; float and 8 bits are the same.
    """

    name: ClassVar[str] = "glasses"
    needs: ClassVar[Needs] = "gradient"
    # What is bound to a mask need not do what an attack on the whole image does.
    masked: ClassVar[bool] = True
    steps: int = number(150, 1, 100_000)
    step: float = number(0.06, 1e-3, 1)
    decay: float = number(0.9, 0, 1)
    mask: Path | None = None
    palette: Path | None = None

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair; pairs without a gradient leave the batch.

        Raises:
            InputError: it is not known where the eyes are, or the mask or the palette cannot be used.
        """
        _, height, width, _ = task.probes.shape
        mask = _frame(task, height, width) if self.mask is None else _read_mask(self.mask, height, width)
        palette = KDTree(_LATTICE if self.palette is None else _read_palette(self.palette))
        cells = _cells(height, width)
        # Each cell begins as the mean color of what it covers.
        colors = np.stack([_means(probe[None], cells)[0] for probe in task.probes])
        mean = np.zeros_like(colors)
        probes, success = task.probes.copy(), np.zeros(len(task), np.bool_)
        evaluations = np.zeros(len(task), np.int64)
        open_ = np.arange(len(task))
        for _ in range(self.steps):
            worn = _wear(task.probes[open_], colors[open_], mask, cells, palette)
            margin, gradient = ascent(model, task, open_, worn)
            evaluations[open_] += 1
            there = reached(task, open_, margin)
            success[open_[there]], probes[open_[there]] = True, worn[there]
            going = ~there & (gradient * mask[..., None]).any(axis=(1, 2, 3))
            open_, gradient = open_[going], gradient[going]
            if not len(open_):
                break
            slope = _means(gradient * mask[..., None], cells)
            length = np.abs(slope).sum(axis=(1, 2), keepdims=True)
            mean[open_] = np.float32(self.decay) * mean[open_] + slope / np.maximum(length, np.float32(1e-30))
            colors[open_] = np.clip(colors[open_] + np.float32(self.step) * np.sign(mean[open_]), 0, 1)
        return _judged(model, task, probes, success, evaluations)


def _frame(task: Task, height: int, width: int) -> Bools:
    if task.landmarks is None:
        raise InputError("glasses: needs to know where the eyes are; give the manifest an [alignment], or set mask")
    return glasses_mask(task.landmarks, height, width)


def _read_mask(path: Path, height: int, width: int) -> Bools:
    image = read_image(path)
    if image.shape[:2] != (height, width):
        raise InputError(
            f"{path}: is {image.shape[1]} x {image.shape[0]}, but this verifier's crops are {width} x {height}; "
            "draw the mask on a crop"
        )
    mask: Bools = image.max(axis=2) >= 128
    if not mask.any():
        raise InputError(f"{path}: nothing in it is bright, so that nothing would be colored")
    return mask


def _read_palette(path: Path) -> Images:
    colors = np.unique(read_image(path).reshape(-1, 3), axis=0)
    if len(colors) > _MOST_COLORS:
        raise InputError(f"{path}: has {len(colors)} colors; a palette has {_MOST_COLORS} at most")
    return to_unit(colors)


def _judged(model: Gradients, task: Task, probes: Images, success: Bools, evaluations: NDArray[np.int64]) -> Crafted:
    """What a deployed verifier says of probes whose values are of 8 bits already."""
    probes8, success8 = to_8bit(probes), success.copy()
    rows = np.flatnonzero(success)
    if len(rows):
        success8[rows] = reached(task, rows, margins(model, task, rows, to_unit(probes8[rows])))
        evaluations[rows] += 1
    return Crafted(probes, success, probes8, success8, evaluations)


def glasses_mask(landmarks: NDArray[np.float64], height: int, width: int) -> Bools:
    """The pixels (H, W) of a frame on the eyes, which are the first two of `landmarks` (5, 2)."""
    left, right = landmarks[0], landmarks[1]
    between = float(np.linalg.norm(right - left))
    tilt = float(np.degrees(np.arctan2(right[1] - left[1], right[0] - left[0])))
    thick = max(1, round(_FRAME * between))
    drawn = np.zeros((height, width), np.uint8)
    axes = round(_LENS[0] * between), round(_LENS[1] * between)
    for eye in (left, right):
        cv2.ellipse(drawn, (round(eye[0]), round(eye[1])), axes, tilt, 0, 360, 1, thick)
    along = (right - left) / between
    for start, end in (
        (left + along * axes[0], right - along * axes[0]),
        (left - along * axes[0], left - along * width),
        (right + along * axes[0], right + along * width),
    ):
        points = [(round(float(x)), round(float(y))) for x, y in (start, end)]
        cv2.line(drawn, points[0], points[1], 1, max(1, thick // 2))
    return drawn > 0


def _cells(height: int, width: int) -> NDArray[np.intp]:
    """The number (H, W) of each pixel's cell."""
    side = max(1, round(width / _CELLS))
    across = -(-width // side)
    return np.asarray((np.arange(height) // side)[:, None] * across + np.arange(width) // side, np.intp)


def _means(images: Images, cells: NDArray[np.intp]) -> Images:
    """The mean (N, cells, 3) of each cell's values."""
    flat, count = cells.ravel(), int(cells.max()) + 1
    size = np.bincount(flat, minlength=count)
    sums = np.zeros((len(images), count, 3))
    for i, image in enumerate(images.reshape(len(images), -1, 3)):
        for channel in range(3):
            sums[i, :, channel] = np.bincount(flat, image[:, channel], count)
    return (sums / size[:, None]).astype(np.float32)


def _wear(clean: Images, colors: Images, mask: Bools, cells: NDArray[np.intp], palette: KDTree) -> Images:
    """Clean probes with the nearest colors of the palette in the mask."""
    nearest = palette.data[palette.query(colors)[1]].astype(np.float32)
    return np.where(mask[..., None], nearest[:, cells], clean)


ATTACK = Glasses()
