"""The search for the way to read a verifier: a few pairs for all ways, more pairs for what cannot be told apart.

The ways form a grid of value ranges, channel orders, alignments, outputs and metrics. A wrong range hides everything
else, so that ranges come first, under one alignment. The best of them are crossed with channel orders and alignments.
From the best of these the search climbs: it tries what differs in one choice, and moves there while that is better.
What is clearly worse on some pairs is not run on the others.

Channel orders, alignments and shapes are compared by `closeness`, which needs few pairs. Value ranges, outputs and
metrics are compared by d', because they stretch distances.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from toolkit.errors import InputError, InsufficientError
from toolkit.faces.pairs import PairSet
from toolkit.manifests.faces import Faces, Sample, crossed_pairs, first_sample, second_sample
from toolkit.manifests.outline import Outline, Probe, spec_of
from toolkit.manifests.readings import Reading, fitting, metrics, neighbors
from toolkit.pixels import to_unit
from toolkit.progress import SILENT, Progress
from toolkit.statistics.separation import FEWEST_TO_SEPARATE, Measure, closeness, d_primes, paired_difference
from toolkit.statistics.verification import Bools, Floats
from toolkit.verifiers.scores import distances

# Choices that are compared by d'.
STRETCHING = ("range", "output", "metric")
# Value ranges that are crossed with channel orders and alignments.
_RANGES_KEPT = 4
# Genuine pairs of the first sample: as many as this time allows, within these limits.
_SECONDS = 25.0
_FEW, _MANY = 6, 16
# Pairs of the second sample.
_SECOND = 40
_MOST_MOVES = 8


@dataclass(frozen=True)
class Tried:
    """A reading on pairs.

    Attributes:
        reading: the reading.
        distances: (n,) of the pairs.
        genuine: (n,), their labels.
        longest: the largest length of an embedding.
    """

    reading: Reading
    distances: Floats
    genuine: Bools
    longest: float

    @property
    def separation(self) -> float:
        """How far genuine and impostor pairs lie apart: d' with its sign."""
        return self._measured(d_primes)

    @property
    def closeness(self) -> float:
        """How many times nearer genuine pairs are than impostor pairs; see `closeness`."""
        return self._measured(closeness)

    def _measured(self, measure: Measure) -> float:
        return float(measure(self.distances[self.genuine], self.distances[~self.genuine]))


@dataclass(frozen=True)
class Choice:
    """One choice of the winner's, beside the readings that differ in it alone.

    Attributes:
        what: range, channels, alignment, shape, output or metric.
        nearest: the other reading that is hardest to tell from the winner; None if nothing else was possible, or gave
            embeddings that differ.
        difference: the 95 % interval of the winner's measure less that of `nearest`: d' for `STRETCHING` choices, and
            closeness for the others. None without `nearest`.
        ties: the readings that these pairs do not tell from the winner.
    """

    what: str
    nearest: Tried | None
    difference: tuple[float, float] | None
    ties: tuple[Reading, ...]


@dataclass(frozen=True)
class Found:
    """What the search found.

    Attributes:
        outline: what the file says.
        winner: the reading that separates best, on all pairs.
        choices: its choices.
        tried: all readings that ran on all pairs or on the second sample, the winner first.
        readings: the number of readings that were tried, with those of the first sample.
        images_run: the number of images that the model processed.
        left_out: the number of pairs without a face.
    """

    outline: Outline
    winner: Tried
    choices: tuple[Choice, ...]
    tried: tuple[Tried, ...]
    readings: int
    images_run: int
    left_out: int


def search(probe: Probe, pairs: PairSet, seed: int = 0, progress: Progress = SILENT) -> Found:
    """Find the reading of a verifier that separates genuine from impostor pairs best.

    Args:
        probe: the verifier.
        pairs: at least `FEWEST_TO_SEPARATE` genuine and as many impostor pairs.
        seed: of the samples and of the bootstrap.
        progress: shows the stages.

    Raises:
        InsufficientError: there are too few pairs, or no reading gives embeddings that differ.
        InputError: an image cannot be read.
    """
    genuine = sum(pair.genuine for pair in pairs.pairs)
    if min(genuine, len(pairs.pairs) - genuine) < FEWEST_TO_SEPARATE:
        raise InsufficientError(
            f"{pairs.source}: has {genuine} genuine and {len(pairs.pairs) - genuine} impostor pairs; "
            f"{FEWEST_TO_SEPARATE} of each kind are needed"
        )
    return _Search(probe, pairs, seed, progress).run()


class _Search:
    def __init__(self, probe: Probe, pairs: PairSet, seed: int, progress: Progress) -> None:
        self.probe, self.outline, self.progress = probe, probe.outline, progress
        self.rng = np.random.default_rng(seed)
        counted = progress.counter("cutting out faces")
        self.faces = Faces(pairs, counted)
        self.all, self.some = Sample("all", pairs), second_sample(pairs, _SECOND, self.rng)
        self.cache: dict[tuple[str, Reading], Tried | None] = {}

    def run(self) -> Found:
        few = self._first_sample()
        ranges = self._ranges(few)
        start = self._crossed(few, ranges)
        winner, choices = self._climb(start, ranges)
        shown: dict[Reading, Tried] = {}
        for sample in (self.all, self.some):
            for (name, reading), tried in self.cache.items():
                if name == sample.name and tried is not None:
                    shown.setdefault(reading, tried)
        ranked = tuple(sorted(_ranked(list(shown.values())), key=lambda t: t is not winner))
        left_out = len(self.faces.crops(self.all, winner.reading).left_out)
        return Found(
            self.outline, winner, choices, ranked, len({reading for _, reading in self.cache}),
            self.probe.images_run, left_out,
        )  # fmt: skip

    def _first_sample(self) -> Sample:
        """As many genuine pairs as the model's speed allows."""
        shape = self.outline.shapes[0]
        crops = np.full((4, shape.height, shape.width, 3), 0.5, np.float32)
        spec = spec_of(self.outline.input, shape)
        self.probe.run(crops, spec)
        start = time.perf_counter()
        self.probe.run(crops, spec)
        each = (time.perf_counter() - start) / len(crops)
        ways = len(self.outline.shapes) * len(fitting(self.outline)) + 2 * _RANGES_KEPT * len(
            self.faces.alignments(shape)
        )
        count = int(_SECONDS / (2 * ways * max(each, 1e-6)))
        return first_sample(self.faces.pairs, min(max(count, _FEW), _MANY), self.rng)

    def _ranges(self, few: Sample) -> list[Reading]:
        """The best readings by shape and range, under the commonest alignment."""
        ways = [
            Reading(shape, scaling, "RGB", self.faces.alignments(shape)[0], output, compared)
            for shape in self.outline.shapes for scaling in fitting(self.outline)
            for output in self.outline.outputs for compared in metrics(self.outline, output)
        ]  # fmt: skip
        ranked = self._best(few, ways, "value ranges")
        kept: dict[tuple[object, str], Reading] = {}
        for tried in ranked:
            kept.setdefault((tried.reading.shape, tried.reading.scaling), tried.reading)
        return list(kept.values())[:_RANGES_KEPT]

    def _crossed(self, few: Sample, ranges: Iterable[Reading]) -> Reading:
        """The best of these, crossed with channel orders and alignments."""
        ways = [
            replace(reading, channels=channels, template=template, output=output, compared=compared)
            for reading in ranges for channels in ("RGB", "BGR") for template in self.faces.alignments(reading.shape)
            for output in self.outline.outputs for compared in metrics(self.outline, output)
        ]  # fmt: skip
        return self._best(few, ways, "channels and alignments")[0].reading

    def _best(self, sample: Sample, ways: list[Reading], stage: str) -> list[Tried]:
        advance = self.progress.stage(stage, len(ways))
        found = []
        for reading in ways:
            tried = self._on(sample, reading)
            if tried is not None:
                found.append(tried)
            advance(1)
        if not found:
            raise InsufficientError(
                f"{self.outline.path}: every way to read it gives embeddings that are all the same or no numbers; "
                "the file is damaged, or is no face verifier"
            )
        return _ranked(found)

    def _climb(self, start: Reading, ranges: list[Reading]) -> tuple[Tried, tuple[Choice, ...]]:
        """Move to what separates better in one choice, on some pairs and then on all."""
        scalings = list(dict.fromkeys(reading.scaling for reading in ranges))
        advance = self.progress.stage("the best, one choice changed", _MOST_MOVES)
        for _ in range(_MOST_MOVES):
            moved = self._better(start, scalings)
            advance(1)
            if moved is None:
                break
            start = moved
        winner = self._on(self.all, start)
        if winner is None:
            raise InsufficientError(f"{self.outline.path}: its embeddings are all the same or no numbers on all pairs")
        choices = (self._choice(winner, what, others) for what, others in self._by_choice(start, scalings))
        return winner, tuple(choices)

    def _better(self, here: Reading, scalings: list[str]) -> Reading | None:
        """A reading that differs in one choice and is better on all pairs; None if there is none."""
        mine, mine_on_some = self._on(self.all, here), self._on(self.some, here)
        for what, others in self._by_choice(here, scalings):
            some = [t for t in (self._on(self.some, r) for r in others) if t is not None]
            near = [t for t in some if mine_on_some is None or self._difference(mine_on_some, t, what)[0] <= 0]
            whole = [t for t in (self._on(self.all, t.reading) for t in near) if t is not None]
            best = max(whole, key=lambda t: _value(t, what), default=None)
            if best is not None and (mine is None or _value(best, what) > _value(mine, what)):
                return best.reading
        return None

    def _by_choice(self, reading: Reading, scalings: list[str]) -> list[tuple[str, list[Reading]]]:
        return list(neighbors(reading, self.outline, scalings, self.faces.alignments(reading.shape)).items())

    def _difference(self, one: Tried, other: Tried, what: str) -> tuple[float, float]:
        """The interval of one reading's measure less another's; (-inf, inf) if they ran on other pairs."""
        if len(one.distances) != len(other.distances):
            return -np.inf, np.inf
        return paired_difference(_measure(what), one.distances, other.distances, one.genuine, self.rng)

    def _choice(self, winner: Tried, what: str, others: list[Reading]) -> Choice:
        """Compare the winner with the best of the readings that differ in one choice, on the pairs that both ran on."""
        compared = []
        for reading in others:
            other, mine = self.cache.get((self.all.name, reading)), winner
            if other is None:
                other, mine = self._on(self.some, reading), self._on(self.some, winner.reading) or winner
            if other is not None and len(other.distances) == len(mine.distances):
                compared.append((other, self._difference(mine, other, what)))
        if not compared:
            return Choice(what, None, None, ())
        nearest, difference = min(compared, key=lambda pair: pair[1][0])
        return Choice(what, nearest, difference, tuple(other.reading for other, (low, _) in compared if low <= 0))

    def _on(self, sample: Sample, reading: Reading) -> Tried | None:
        """The reading on a sample; None if its embeddings are degenerate. Each is run once."""
        key = (sample.name, reading)
        if key not in self.cache:
            self._run(sample, reading)
        return self.cache[key]

    def _run(self, sample: Sample, reading: Reading) -> None:
        """Run the model once, and keep what it gives for every output and metric."""
        crops = self.faces.crops(sample, reading)
        index, labels = (
            crossed_pairs(crops) if sample.crossed
            else (crops.index, np.array([pair.genuine for pair in crops.pairs], np.bool_))
        )  # fmt: skip
        try:
            found = self.probe.run(to_unit(crops.images[:]), reading.spec(self.outline.input))
        except InputError:  # the model does not take this shape with these values
            found = {}
        for output in self.outline.outputs:
            for compared in metrics(self.outline, output):
                tried = None if output not in found else _tried(
                    replace(reading, output=output, compared=compared), found[output], index, labels
                )  # fmt: skip
                self.cache[sample.name, replace(reading, output=output, compared=compared)] = tried


def _tried(reading: Reading, embeddings: np.ndarray, index: np.ndarray, labels: Bools) -> Tried | None:
    """The distances of a reading; None if embeddings are no numbers, or all the same."""
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all() or not lengths.any():
        return None
    d = distances(reading.compared, embeddings[index[:, 0]], embeddings[index[:, 1]])
    tried = Tried(reading, d, labels, float(lengths.max()))
    return tried if tried.separation > -np.inf and np.ptp(d) > 1e-7 * max(1.0, float(np.abs(d).max())) else None


def _measure(what: str) -> Measure:
    return d_primes if what in STRETCHING else closeness


def _value(tried: Tried, what: str) -> float:
    return tried.separation if what in STRETCHING else tried.closeness


def _ranked(tried: Sequence[Tried]) -> list[Tried]:
    """The best first: ranges, outputs and metrics by the best d' that any reading reaches with them, then closeness."""

    def stretched(t: Tried) -> tuple[str, str, str]:
        return (t.reading.output, t.reading.compared, t.reading.scaling)

    best: dict[tuple[str, str, str], float] = {}
    for t in tried:
        best[stretched(t)] = max(best.get(stretched(t), -np.inf), t.separation)
    return sorted(tried, key=lambda t: (-best[stretched(t)], -t.closeness))
