"""Pairs that have a face in the crops of two verifiers, and how their probes are resampled from one to the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InsufficientError
from toolkit.faces.alignment import LandmarkFinder
from toolkit.faces.carry import Matrix, View, between, carry
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools

Crops = NDArray[np.uint8]


@dataclass(frozen=True)
class Carried:
    """The n pairs with a face in the crops of both source and target.

    Attributes:
        rows: (n,), the rows of the pairs in the run.
        clean, references: (n, H, W, 3), the source's crops of probes and references.
        own, own_references: (n, H, W, 3), the target's crops of probes and references.
        matrices: n matrices that map the probes' pixels from the source's to the target's crop.
        genuine: (n,), whether each pair is of one person.
        same: whether source and target take the same crops.
    """

    rows: NDArray[np.intp]
    clean: Crops
    references: Crops
    own: Crops
    own_references: Crops
    matrices: list[Matrix]
    genuine: Bools
    same: bool

    def carry(self, crops: Crops, rows: NDArray[np.intp]) -> Crops:
        """Resample source crops of the pairs `rows` to the target's crop."""
        carried = [carry(crop, self.matrices[i], self.own[i]) for crop, i in zip(crops, rows, strict=True)]
        return np.stack(carried) if carried else self.own[:0]


def carried_pairs(crops: CropSet, own: CropSet, views: tuple[View, View], finder: LandmarkFinder) -> Carried:
    """Find the pairs with a face in both crops, and how their probes are resampled.

    Args:
        crops: the pairs in the source's crops.
        own: the pairs in the target's crops.
        views: the size and alignment of source and target.
        finder: the landmarks.

    Raises:
        InsufficientError: no pair has a face in both.
    """
    place = {pair.id: i for i, pair in enumerate(own.pairs)}
    rows = np.array([i for i, pair in enumerate(crops.pairs) if pair.id in place], np.intp)
    if not len(rows):
        raise InsufficientError("no pair of the run has a face in the target's crops; audit with other pairs")
    there = own.index[[place[crops.pairs[i].id] for i in rows]]
    return Carried(
        rows=rows,
        clean=crops.images[crops.index[rows, 0]],
        references=crops.images[crops.index[rows, 1]],
        own=own.images[there[:, 0]],
        own_references=own.images[there[:, 1]],
        matrices=[between(*views, crops.pairs[i].probe, finder) for i in rows],
        genuine=np.array([crops.pairs[i].genuine for i in rows]),
        same=views[0] == views[1],
    )
