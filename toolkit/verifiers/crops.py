"""Crops in the size and alignment that a verifier takes, and their embeddings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.faces.carry import View
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import PairSet
from toolkit.faces.rows import Rows, gather_rows
from toolkit.pixels import to_unit
from toolkit.progress import SILENT, Progress
from toolkit.verifiers.manifest import Alignment, Manifest

# Crops per call.
BATCH = 256
# The embeddings (N, D) and the attack scores (N,) of a batch.
Embedded = tuple[NDArray[np.float32], NDArray[np.float32]]


def temporary_folder() -> Path:
    """The folder for temporary files, for the crops and embeddings of a command that has no folder of its own."""
    return Path(tempfile.gettempdir())


def crop_for(manifest: Manifest, pairs: PairSet, progress: Progress = SILENT, spill: Path | None = None) -> CropSet:
    """Align every image of `pairs` once, to the size and the template in a manifest.

    Args:
        manifest: the verifier's manifest.
        pairs: the pairs.
        progress: shows how many images are done.
        spill: a folder for a temporary file of the crops. Default: `temporary_folder()`.

    Raises:
        InputError: an image cannot be read, or the manifest has no template and an image does not have the crop's
            size; or the folder cannot be written.
        InsufficientError: no pair is left.
    """
    spec = manifest.input
    template = manifest.alignment.template if manifest.alignment else None
    counter = progress.counter("aligning")
    return crop_pairs(pairs, spec.width, spec.height, template, progress=counter, spill=spill or temporary_folder())


class Scoring(Protocol):
    """A verifier, here or elsewhere, with or without a detector."""

    def embed_and_score(self, crops: NDArray[np.float32], /) -> Embedded:
        """Return embeddings (N, D) and attack scores (N,) of crops (N, H, W, 3), RGB in [0, 1]."""
        ...


def embed_crops(
    verifier: Scoring,
    images: NDArray[np.uint8] | Rows,
    progress: Callable[[int], object] | None = None,
    batch: int = BATCH,
    rows: NDArray[np.intp] | None = None,
) -> Iterator[Embedded]:
    """Yield the embeddings and attack scores of many crops, a batch at a time.

    Args:
        verifier: the verifier.
        images: (M, H, W, 3) uint8 crops.
        progress: called with the number of crops just embedded.
        batch: crops per call.
        rows: the crops to embed, in this order. Default: all.
    """
    places = np.arange(len(images)) if rows is None else rows
    for start in range(0, len(places), batch):
        found = verifier.embed_and_score(to_unit(images[places[start : start + batch]]))
        yield found
        if progress is not None:
            progress(len(found[1]))


def gather_embedded(
    parts: Iterable[Embedded], spill: Path | None
) -> tuple[NDArray[np.float32] | Rows, NDArray[np.float32]]:
    """Put the parts of `embed_crops` together: embeddings in memory or in a temporary file, and scores in memory.

    Args:
        parts: the parts.
        spill: see `gather_rows`.

    Returns:
        Embeddings (M, D) and attack scores (M,).

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    scores: list[NDArray[np.float32]] = []

    def embeddings() -> Iterator[NDArray[np.float32]]:
        for part, of_part in parts:
            scores.append(of_part)
            yield part

    return gather_rows(embeddings(), spill), np.concatenate(scores)


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
