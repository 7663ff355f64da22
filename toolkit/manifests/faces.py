"""The images that readings are tried on, cut out in each of the usual alignments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from toolkit.faces.alignment import LandmarkFinder
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.images import read_image
from toolkit.faces.pairs import Pair, PairSet
from toolkit.manifests.outline import Shape
from toolkit.manifests.readings import NO_TEMPLATE, Reading, templates
from toolkit.pixels import Bools


@dataclass(frozen=True)
class Sample:
    """Some of the pairs.

    Attributes:
        name: of the sample.
        pairs: the pairs.
        crossed: whether every image is compared with every other one, instead of the pairs alone. Images of two genuine
            pairs show two people, so that a few pairs give many distances.
    """

    name: str
    pairs: PairSet
    crossed: bool = False


class Faces:
    """Crops of samples, each cut out once for each alignment and size."""

    def __init__(self, pairs: PairSet, progress: Callable[[int, int], None] | None = None) -> None:
        """Keep the pairs. Landmarks are found when they are first needed.

        Args:
            pairs: all pairs.
            progress: called with the number of images cut out so far, and how many there are in this sample.
        """
        self.pairs, self._progress = pairs, progress
        self._finder = LandmarkFinder(pairs.root)
        self._made: dict[tuple[Shape, str, str], CropSet] = {}
        first = read_image(pairs.root / pairs.pairs[0].probe)
        self._size = first.shape[:2]

    def alignments(self, shape: Shape) -> list[str]:
        """The names of the alignments to try: the usual ones, and none for images that have the size of crops."""
        usual = list(templates(shape))
        return [NO_TEMPLATE, *usual] if self._size == (shape.height, shape.width) else usual

    def crops(self, sample: Sample, reading: Reading) -> CropSet:
        """Cut out the images of a sample as a reading asks for.

        Raises:
            InputError: an image cannot be read, or has another size than the crops that all of them should be.
            InsufficientError: no pair is left.
        """
        key = (reading.shape, reading.template, sample.name)
        if key not in self._made:
            size = reading.shape.width, reading.shape.height
            self._made[key] = crop_pairs(sample.pairs, *size, reading.points(), self._finder, self._progress)
        return self._made[key]


def first_sample(pairs: PairSet, count: int, rng: np.random.Generator) -> Sample:
    """A few genuine pairs, of different people as far as they are known."""
    genuine = [pair for pair in pairs.pairs if pair.genuine]
    seen: set[str] = set()
    new: list[Pair] = []
    again: list[Pair] = []
    for place in rng.permutation(len(genuine)):
        pair = genuine[place]
        (again if pair.probe_identity in seen else new).append(pair)
        seen |= {pair.probe_identity} if pair.probe_identity else set()
    return Sample("first", replace(pairs, pairs=tuple([*new, *again][:count])), crossed=True)


def second_sample(pairs: PairSet, count: int, rng: np.random.Generator) -> Sample:
    """Some pairs, half of them genuine."""
    kinds = [[pair for pair in pairs.pairs if pair.genuine is kind] for kind in (True, False)]
    chosen = [kind[i] for kind in kinds for i in rng.permutation(len(kind))[: (count + 1) // 2]]
    return Sample("second", replace(pairs, pairs=tuple(chosen)))


def crossed_pairs(crops: CropSet) -> tuple[np.ndarray, Bools]:
    """All pairs (n, 2) of places in `crops.images`, with a label (n,), from a sample of genuine pairs.

    Two images are of two people if they belong to pairs of which no name agrees.
    """
    owner = _owners(crops.pairs, len(crops.images), crops.index)
    i, j = np.triu_indices(len(crops.images), 1)
    genuine = set(map(tuple, np.sort(crops.index, axis=1)))
    labels = np.array([(a, b) in genuine for a, b in zip(i, j, strict=True)], np.bool_)
    kept = labels | (owner[i] != owner[j])
    return np.stack([i, j], 1)[kept], labels[kept]


def _owners(pairs: tuple[Pair, ...], images: int, index: np.ndarray) -> np.ndarray:
    """A number (M,) for the person in each image: pairs that share a name or an image share it."""
    owner, named = np.arange(images), dict[str, int]()
    for pair, (probe, reference) in zip(pairs, index, strict=True):
        number = min(owner[probe], owner[reference], named.get(pair.probe_identity or "", images))
        for old in {owner[probe], owner[reference], named.get(pair.probe_identity or "", int(number))}:
            owner[owner == old] = number
        if pair.probe_identity:
            named[pair.probe_identity] = int(number)
    return owner
