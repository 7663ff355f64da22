"""The pairs that benchmarks work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import Bools
from toolkit.verifiers.manifest import Manifest


def crops_of(manifest: Manifest, pairs: Path, folds: str, limit: int) -> tuple[CropSet, Bools]:
    """Load pairs of some folds ("7,8"), cropped for one verifier, and which of them (n,) are of one person."""
    template = manifest.alignment.template if manifest.alignment else None
    loaded = load_pairs(pairs, limit=limit, folds=[int(fold) for fold in folds.split(",")])
    crops = crop_pairs(loaded, manifest.input.width, manifest.input.height, template)
    return crops, np.array([pair.genuine for pair in crops.pairs])
