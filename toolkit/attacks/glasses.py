"""Printed glasses, or a patch of another shape (Sharif et al. 2016, "Accessorize to a Crime", section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from toolkit.attacks.base import Crafted, Gradients, Needs, Task, Traits, ascent, margins, reached
from toolkit.errors import InputError
from toolkit.faces.images import read_image
from toolkit.parameters import number
from toolkit.pixels import Bools, Images, to_8bit, to_unit

# The reflectances that ink on paper can reach. No printer reaches pure black or white. These values are assumptions,
# not measurements.
LEVELS = to_unit(np.array([26, 128, 230], np.uint8))
_LATTICE = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), axis=-1).reshape(-1, 3)
# Half of a lens's width and height, and the thickness of the frame, as shares of the distance between the eyes.
_LENS, _FRAME = (0.38, 0.28), 0.09
# The number of cells of one color across a crop's width. Finer details do not survive printing and a camera.
_CELLS = 80
# The largest number of different colors in a palette image.
_MOST_COLORS = 4096


@dataclass(frozen=True)
class Glasses:
    """Changes only the colors of a glasses frame, with colors that can be printed.

    The frame is on the eyes of the aligned crop and extends to the left and right edges. The colors may differ from the
    photograph by any amount. Each color fills a cell of about 1/80 of the crop's width. The attack optimizes continuous
    colors with sign steps and momentum. The probe shows the nearest colors of the palette, and the gradient treats this
    rounding as the identity. A pair is done after its first success. Float and 8-bit results are equal.

    Attributes:
        steps: the largest number of steps.
        step: the change of each color value in a step, in units of the pixel range.
        decay: the share of the accumulated gradient that each step keeps.
        mask: an image of the crop's size whose bright pixels replace the frame; None for the frame.
        palette: an image with the colors to use, for example a photograph of a printed chart; None for a lattice of
            three reflectances per channel.
    """

    name: ClassVar[str] = "glasses"
    needs: ClassVar[Needs] = "gradient"
    steps: int = number(150, 1, 100_000)
    step: float = number(0.06, 1e-3, 1)
    decay: float = number(0.9, 0, 1)
    mask: Path | None = None
    palette: Path | None = None

    @property
    def traits(self) -> Traits:
        """See `Attack`."""
        return Traits(steps=self.steps, restarts=1, masked=True)

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair. Pairs without a gradient leave the batch.

        Raises:
            InputError: the positions of the eyes are unknown, or the mask or the palette cannot be used.
        """
        _, height, width, _ = task.probes.shape
        mask = self.pixels(task.landmarks, height, width)
        palette = KDTree(_LATTICE if self.palette is None else _read_palette(self.palette))
        cells = _cells(height, width)
        # Each cell starts with the mean color of its pixels.
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

    def pixels(self, landmarks: NDArray[np.float64] | None, height: int, width: int) -> Bools:
        """See `Worn`."""
        if self.mask is not None:
            return _read_mask(self.mask, height, width)
        if landmarks is None:
            raise InputError(
                "glasses: the positions of the eyes are unknown; add [alignment] to the manifest, or set mask"
            )
        return glasses_mask(landmarks, height, width)


def _read_mask(path: Path, height: int, width: int) -> Bools:
    image = read_image(path)
    if image.shape[:2] != (height, width):
        raise InputError(
            f"{path}: is {image.shape[1]} x {image.shape[0]}, but the verifier's crops are {width} x {height}; "
            "draw the mask in this size"
        )
    mask: Bools = image.max(axis=2) >= 128
    if not mask.any():
        raise InputError(f"{path}: the mask has no bright pixel; make the pixels to color bright (128 or more)")
    return mask


def _read_palette(path: Path) -> Images:
    colors = np.unique(read_image(path).reshape(-1, 3), axis=0)
    if len(colors) > _MOST_COLORS:
        raise InputError(f"{path}: has {len(colors)} colors; a palette must have at most {_MOST_COLORS}")
    return to_unit(colors)


def _judged(model: Gradients, task: Task, probes: Images, success: Bools, evaluations: NDArray[np.int64]) -> Crafted:
    """Check the success of probes with 8-bit values on the deployed verifier."""
    probes8, success8 = to_8bit(probes), success.copy()
    rows = np.flatnonzero(success)
    if len(rows):
        success8[rows] = reached(task, rows, margins(model, task, rows, to_unit(probes8[rows])))
        evaluations[rows] += 1
    return Crafted(probes, success, probes8, success8, evaluations)


def glasses_mask(landmarks: NDArray[np.float64], height: int, width: int) -> Bools:
    """Return the pixels (H, W) of a glasses frame. The eyes are the first two of `landmarks` (5, 2)."""
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
    """Return the index (H, W) of each pixel's cell."""
    side = max(1, round(width / _CELLS))
    across = -(-width // side)
    return np.asarray((np.arange(height) // side)[:, None] * across + np.arange(width) // side, np.intp)


def _means(images: Images, cells: NDArray[np.intp]) -> Images:
    """Return the mean color (N, cells, 3) of each cell."""
    flat, count = cells.ravel(), int(cells.max()) + 1
    size = np.bincount(flat, minlength=count)
    sums = np.zeros((len(images), count, 3))
    for i, image in enumerate(images.reshape(len(images), -1, 3)):
        for channel in range(3):
            sums[i, :, channel] = np.bincount(flat, image[:, channel], count)
    return (sums / size[:, None]).astype(np.float32)


def _wear(clean: Images, colors: Images, mask: Bools, cells: NDArray[np.intp], palette: KDTree) -> Images:
    """Replace the pixels in the mask of clean probes by the palette's nearest colors."""
    nearest = palette.data[palette.query(colors)[1]].astype(np.float32)
    return np.where(mask[..., None], nearest[:, cells], clean)


ATTACK = Glasses()
