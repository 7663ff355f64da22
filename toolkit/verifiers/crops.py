"""Crops in the size and alignment that a verifier takes."""

from __future__ import annotations

from pathlib import Path

from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import PairSet
from toolkit.progress import SILENT, Progress
from toolkit.verifiers.manifest import Manifest


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
