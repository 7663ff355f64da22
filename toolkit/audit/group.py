"""Group impersonation: a stranger's probe is to match any of some enrolled people (the paper's future work)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InsufficientError, UsageError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair
from toolkit.faces.rows import Rows
from toolkit.verifiers.manifest import Metric
from toolkit.verifiers.scores import distances

Embeddings = NDArray[np.float32] | Rows
# Probes whose distances to the group are taken in one go.
_AT_ONCE = 256


def enroll(crops: CropSet, size: int, seed: int) -> CropSet:
    """Enroll one crop each of `size` people; every crop of anybody else becomes a probe against all of them.

    Raises:
        UsageError: fewer than two people are to be enrolled, or the pairs do not say who is on them.
        InsufficientError: nobody is left to attack them.
    """
    if size < 2:
        raise UsageError(f"a group of {size} is none; enroll at least 2")
    named = {p.probe: p.probe_identity for p in crops.pairs} | {p.reference: p.reference_identity for p in crops.pairs}
    if any(named[name] is None for name in crops.names if name in named):
        raise UsageError("a group needs to know who is who; give LFW, or a folder with one folder for each person")
    people: dict[str, list[int]] = {}
    for place, name in enumerate(crops.names):
        if name in named:
            people.setdefault(str(named[name]), []).append(place)
    if len(people) <= size:
        raise InsufficientError(f"{len(people)} people cannot make a group of {size} and somebody to attack it")
    order = np.random.default_rng(seed).permutation(len(people))
    enrolled = [list(people)[i] for i in order[:size]]
    gallery = np.array([people[person][0] for person in enrolled], np.intp)
    probes = [(place, person) for person, places in people.items() if person not in enrolled for place in places]
    group = f"any of {size}"
    pairs = tuple(Pair(crops.names[place], group, False, None, person) for place, person in probes)
    index = np.array([[place, gallery[0]] for place, _ in probes], np.intp)
    return replace(crops, pairs=pairs, index=index, gallery=gallery)


def aim(crops: CropSet, embeddings: Embeddings, metric: Metric) -> CropSet:
    """With the enrolled person who is nearest to each probe as its reference; what is no group stays as it is.

    Args:
        crops: the pairs.
        embeddings: (M, D), of every distinct crop by the verifier that is attacked.
        metric: of its distances.
    """
    if crops.gallery is None:
        return crops
    nearest = np.concatenate(
        [
            _to_gallery(crops.gallery, embeddings, embeddings[probes], metric).argmin(axis=1)
            for probes in np.array_split(crops.index[:, 0], -(-len(crops.index) // _AT_ONCE))
        ]
    )
    return replace(crops, index=np.stack([crops.index[:, 0], crops.gallery[nearest]], axis=1))


def reference_distances(
    crops: CropSet, rows: NDArray[np.intp], embeddings: Embeddings, probes: NDArray[np.float32], metric: Metric
) -> NDArray[np.float64]:
    """Distances (m,) of the pairs `rows` from probes' embeddings (m, D) to their references, or the nearest."""
    if crops.gallery is None:
        return distances(metric, probes, embeddings[crops.index[rows, 1]])
    return np.asarray(_to_gallery(crops.gallery, embeddings, probes, metric).min(axis=1))


def _to_gallery(
    gallery: NDArray[np.intp], embeddings: Embeddings, probes: NDArray[np.float32], metric: Metric
) -> NDArray[np.float64]:
    """Distances (m, G) of embeddings (m, D) to every enrolled one."""
    enrolled = [np.broadcast_to(embeddings[place], probes.shape) for place in gallery]
    return np.stack([distances(metric, probes, one) for one in enrolled], axis=1)
