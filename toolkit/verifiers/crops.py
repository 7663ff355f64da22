"""Crops in the size and alignment that a verifier takes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from toolkit.faces.carry import View
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import PairSet
from toolkit.progress import SILENT, Progress
from toolkit.verifiers.manifest import Alignment, Manifest


def crop_for(manifest: Manifest, pairs: PairSet, progress: Progress = SILENT, spill: Path | None = None) -> CropSet:
    """Align every image of `pairs` once, to the size and the template in a manifest.

    Args:
        manifest: the verifier's manifest.
        pairs: the pairs.
        progress: shows how many images are done.
        spill: a folder for a temporary file of the crops; None keeps the crops in memory.

    Raises:
        InputError: an image cannot be read, or the manifest has no template and an image does not have the crop's
            size.
        InsufficientError: no pair is left.
    """
    spec = manifest.input
    template = manifest.alignment.template if manifest.alignment else None
    return crop_pairs(pairs, spec.width, spec.height, template, progress=progress.counter("aligning"), spill=spill)


class Sized(Protocol):
    """Something with a width and a height in pixels."""

    @property
    def width(self) -> int:
        """The width."""
        ...

    @property
    def height(self) -> int:
        """The height."""
        ...


def view_of(size: Sized, alignment: Alignment | None) -> View:
    """The size and alignment of a verifier's crops."""
    return View(size.width, size.height, None if alignment is None else alignment.template)
