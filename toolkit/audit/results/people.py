"""Who is in the pairs of a run, by name and by the pixels of the crops."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from toolkit.faces.crops import CropSet


@dataclass(frozen=True)
class PairFaces:
    """Who is in the n pairs.

    Attributes:
        probe_people, reference_people: (n,), the names of the people; "" if unknown.
        probe_crops, reference_crops: (n,), SHA-256 hashes of the crops' pixels, so that a copy under another name is
            found. The reference of a group is "".
        subgroups: (n,), see `Pair.subgroup`; "" without one.
    """

    probe_people: tuple[str, ...]
    reference_people: tuple[str, ...]
    probe_crops: tuple[str, ...]
    reference_crops: tuple[str, ...]
    subgroups: tuple[str, ...]


def faces_of(crops: CropSet) -> PairFaces:
    """Return who is in the pairs of `crops`."""
    hashes = [
        hashlib.sha256(np.ascontiguousarray(crops.images[i]).tobytes()).hexdigest() for i in range(len(crops.names))
    ]
    alone = crops.gallery is not None
    return PairFaces(
        tuple(pair.probe_identity or "" for pair in crops.pairs),
        tuple(pair.reference_identity or "" for pair in crops.pairs),
        tuple(hashes[probe] for probe, _ in crops.index),
        tuple("" if alone else hashes[reference] for _, reference in crops.index),
        tuple(pair.subgroup or "" for pair in crops.pairs),
    )
