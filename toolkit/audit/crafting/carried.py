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
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Carried:
    """The n pairs with a face in the crops of both source and target.

    The crops stay where they are, in memory or on disk. Every method takes the places (k,) of some of the n pairs.

    Attributes:
        rows: (n,), the rows of the pairs in the run.
        source, target: all pairs in the crops of source and target.
        target_rows: (n,), the rows of the pairs in `target`.
        matrices: n matrices that map the probes' pixels from the source's to the target's crop.
        genuine: (n,), whether each pair is of one person.
        same: whether source and target take the same crops.
    """

    rows: Places
    source: CropSet
    target: CropSet
    target_rows: Places
    matrices: list[Matrix]
    genuine: Bools
    same: bool

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def places(self) -> Places:
        """All n places."""
        return np.arange(len(self.rows))

    def clean(self, places: Places) -> Crops:
        """The source's crops (k, H, W, 3) of probes."""
        return self.source.images[self.source.index[self.rows[places], 0]]

    def own(self, places: Places) -> Crops:
        """The target's crops of probes."""
        return self.target.images[self.target.index[self.target_rows[places], 0]]

    def own_references(self, places: Places) -> Crops:
        """The target's crops of references."""
        return self.target.images[self.target.index[self.target_rows[places], 1]]

    def seen_by_source(self, places: Places) -> tuple[Crops, Crops]:
        """The source's crops of probes and references."""
        return self.clean(places), self.source.images[self.source.index[self.rows[places], 1]]

    def seen_by_target(self, places: Places) -> tuple[Crops, Crops]:
        """The target's crops of probes and references."""
        return self.own(places), self.own_references(places)

    def carry(self, crops: Crops, places: Places) -> Crops:
        """Resample source crops (k, H, W, 3) to the target's crop."""
        own = self.own(places)
        carried = [carry(crop, self.matrices[i], onto) for crop, onto, i in zip(crops, own, places, strict=True)]
        return np.stack(carried) if carried else own


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
    return Carried(
        rows=rows,
        source=crops,
        target=own,
        target_rows=np.array([place[crops.pairs[i].id] for i in rows], np.intp),
        matrices=[between(*views, crops.pairs[i].probe, finder) for i in rows],
        genuine=np.array([crops.pairs[i].genuine for i in rows]),
        same=views[0] == views[1],
    )
