"""Group impersonation: a stranger tries to match any of several enrolled people (future work in the paper)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Measurer
from toolkit.errors import InsufficientError, UsageError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair
from toolkit.faces.rows import Rows
from toolkit.verifiers.manifest import Metric
from toolkit.verifiers.scores import distances

Embeddings = NDArray[np.float32] | Rows
# Probes per batch when distances to the group are computed.
_AT_ONCE = 256


def enroll(crops: CropSet, size: int, seed: int) -> CropSet:
    """Enroll one crop of each of `size` people. Every crop of anybody else becomes a probe against all of them.

    Args:
        crops: the pairs, with the names of their people.
        size: number of people to enroll.
        seed: seed of the choice of people.

    Raises:
        UsageError: `size` is below two, or the pairs do not name their people.
        InsufficientError: nobody is left to attack the group.
    """
    if size < 2:
        raise UsageError(f"--group {size}: a group needs at least 2 people")
    named = {p.probe: p.probe_identity for p in crops.pairs} | {p.reference: p.reference_identity for p in crops.pairs}
    if any(named[name] is None for name in crops.names if name in named):
        raise UsageError("--group needs named people; give LFW, or a folder with one subfolder for each person")
    people: dict[str, list[int]] = {}
    for place, name in enumerate(crops.names):
        if name in named:
            people.setdefault(str(named[name]), []).append(place)
    if len(people) <= size:
        raise InsufficientError(
            f"--group {size} needs more than {size} people, and the pairs have {len(people)}; give more pairs"
        )
    order = np.random.default_rng(seed).permutation(len(people))
    enrolled = [list(people)[i] for i in order[:size]]
    gallery = np.array([people[person][0] for person in enrolled], np.intp)
    probes = [(place, person) for person, places in people.items() if person not in enrolled for place in places]
    group = f"any of {size}"
    pairs = tuple(Pair(crops.names[place], group, False, None, person) for place, person in probes)
    index = np.array([[place, gallery[0]] for place, _ in probes], np.intp)
    return replace(crops, pairs=pairs, index=index, gallery=gallery)


def aim(crops: CropSet, embeddings: Embeddings, metric: Metric) -> CropSet:
    """Make the nearest enrolled person the reference of each probe. Without a group, return the crops unchanged.

    Args:
        crops: the pairs.
        embeddings: (M, D) float32, the attacked verifier's embedding of every distinct crop.
        metric: the verifier's metric.
    """
    if crops.gallery is None:
        return crops
    nearest = np.concatenate(
        [
            _to_gallery(crops.gallery, embeddings, embeddings[probes], partial(distances, metric)).argmin(axis=1)
            for probes in np.array_split(crops.index[:, 0], -(-len(crops.index) // _AT_ONCE))
        ]
    )
    return replace(crops, index=np.stack([crops.index[:, 0], crops.gallery[nearest]], axis=1))


def reference_distances(
    crops: CropSet, rows: NDArray[np.intp], embeddings: Embeddings, probes: NDArray[np.float32], measure: Measurer
) -> NDArray[np.float64]:
    """Distances (m,) from probes to their references, or to the nearest enrolled person of a group.

    Args:
        crops: n pairs of M distinct crops.
        rows: (m,), the pairs of the probes.
        embeddings: (M, D) float32, the embedding of every distinct crop.
        probes: (m, D) float32, the embeddings of the probes.
        measure: finds the distances, see `attacks.base.measurer`.
    """
    if crops.gallery is None:
        return measure(probes, embeddings[crops.index[rows, 1]])
    return np.asarray(_to_gallery(crops.gallery, embeddings, probes, measure).min(axis=1))


def _to_gallery(
    gallery: NDArray[np.intp], embeddings: Embeddings, probes: NDArray[np.float32], measure: Measurer
) -> NDArray[np.float64]:
    """Distances (m, G) from probes (m, D) to each of the G enrolled people."""
    enrolled = [np.broadcast_to(embeddings[place], probes.shape) for place in gallery]
    return np.stack([measure(probes, one) for one in enrolled], axis=1)
