"""Warnings about the data of a run itself: what makes its numbers worth nothing, whatever the attacks did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from toolkit.audit.results.outcomes import CleanOutcomes, Run
from toolkit.statistics.intervals import Rate

Code = Literal[
    "degenerate-embeddings",
    "swapped-labels",
    "duplicate-pairs",
    "same-image",
    "one-person",
    "detector-alarms",
    "accepts-all",
    "refuses-all",
]
# A detector that flags more of the clean crops than this is suspicious.
_MOST_ALARMS = 0.1
# If one person is in more than this share of the pairs, the run is about that person.
_MOST_OF_ONE = 0.5
# Distances are stored with 6 digits. Distances that differ less than this share of the threshold are the same.
_SAME = 1e-6


@dataclass(frozen=True)
class Suspicion:
    """A warning about a run's data.

    Attributes:
        code: what is suspicious, for programs.
        text: the same in plain words, with counts.
    """

    code: Code
    text: str


def suspicions(run: Run) -> tuple[Suspicion, ...]:
    """Return what is suspicious about the data of a finished run, the gravest first.

    It looks at the clean results of every deployed profile, and at the list of pairs. It does not look at attacks.

    Args:
        run: a finished run.
    """
    return (*(s for clean in run.clean for s in _of_clean(run, clean)), *_of_pairs(run), *_of_detectors(run))


def _of_clean(run: Run, clean: CleanOutcomes) -> list[Suspicion]:
    found, d, n = [], np.asarray(clean.distances, np.float64), len(clean.correct)
    if n == 0:
        return []
    behind = f"profile {clean.profile}"
    finite = d[np.isfinite(d)]
    if len(finite) < n:
        found.append(
            Suspicion("degenerate-embeddings", f"{behind}: {n - len(finite)} of {n} clean distances are not numbers")
        )
    scale = max(run.assessment.target.threshold, float(np.abs(finite).max(initial=0.0)))
    if len(finite) > 1 and np.ptp(finite) <= _SAME * scale:
        text = f"{behind}: all {len(finite)} clean distances are {finite[0]:g}; the embeddings do not tell images apart"
        found.append(Suspicion("degenerate-embeddings", text))
    right = int(clean.correct.sum())
    if right < n - right:
        text = (
            f"{behind}: only {right} of {n} clean pairs are decided correctly, less than by chance; the labels may be "
            "swapped"
        )
        found.append(Suspicion("swapped-labels", text))
    # A verifier that accepts is correct on genuine pairs and wrong on impostor pairs.
    accepted = np.asarray(clean.correct == run.genuine)
    both = bool(run.genuine.any() and not run.genuine.all())
    if both and accepted.all():
        found.append(Suspicion("accepts-all", f"{behind}: the verifier accepts all {n} clean pairs, impostors too"))
    if both and not accepted.any():
        found.append(Suspicion("refuses-all", f"{behind}: the verifier refuses all {n} clean pairs, genuine ones too"))
    return found


def _of_pairs(run: Run) -> list[Suspicion]:
    found, n = [], len(run.pairs)
    images = [_images(pair) for pair in run.pairs]
    times = Counter(frozenset(pair) for pair in images)
    repeated = n - len(times)
    if repeated:
        worst, count = max(times.items(), key=lambda item: (item[1], sorted(item[0])))
        example = " and ".join(sorted(worst))
        text = f"{repeated} of {n} pairs repeat the two images of another pair, for example {example} ({count} times)"
        found.append(Suspicion("duplicate-pairs", text))
    same = [probe for probe, reference in images if probe == reference]
    if same:
        text = f"{len(same)} of {n} pairs compare an image with itself, for example {same[0]}"
        found.append(Suspicion("same-image", text))
    if run.assessment.group is not None:
        # The reference of all probes is the group, which is no person. Groups need folders that name their people.
        person = {probe: PurePosixPath(probe).parent.as_posix() for probe, _ in images}
        images = [(probe, probe) for probe, _ in images]
    else:
        person = _people(images, run.genuine.tolist())
    if n > 1 and person:
        (name, count), *_ = Counter(one for pair in images for one in {person[image] for image in pair}).most_common(1)
        if count > _MOST_OF_ONE * n:
            text = f"one person (of {name}) is in {count} of {n} pairs; the results are about this person"
            found.append(Suspicion("one-person", text))
    return found


def _images(pair: str) -> tuple[str, str]:
    """Return the probe and the reference of a pair's id."""
    parts = pair.rpartition("|")[0].split("|")
    half = len(parts) // 2
    return "|".join(parts[:half]), "|".join(parts[half:])


def _people(images: list[tuple[str, str]], genuine: list[bool]) -> dict[str, str]:
    """Return for each image the first image of the same person.

    Genuine pairs tell which images show one person. So do folders, if impostor pairs are of different ones and genuine
    pairs are not.
    """
    first: dict[str, str] = {}

    def root(image: str) -> str:
        while first.setdefault(image, image) != image:
            first[image] = first[first[image]]
            image = first[image]
        return image

    def join(one: str, other: str) -> None:
        low, high = sorted((root(one), root(other)))
        first[high] = low

    for (probe, reference), same in zip(images, genuine, strict=True):
        if same:
            join(probe, reference)
    folders = [(PurePosixPath(probe).parent, PurePosixPath(reference).parent) for probe, reference in images]
    if not all(genuine) and all((a == b) == same for (a, b), same in zip(folders, genuine, strict=True)):
        of_folder: dict[PurePosixPath, str] = {}
        for image in dict.fromkeys(image for pair in images for image in pair):
            join(of_folder.setdefault(PurePosixPath(image).parent, image), image)
    return {image: root(image) for pair in images for image in pair}


def _of_detectors(run: Run) -> list[Suspicion]:
    found = []
    for clean in run.assessment.clean:
        alarms: Rate | None = clean.false_alarm
        if alarms is not None and alarms.value is not None and alarms.value > _MOST_ALARMS:
            share = f"{alarms.successes} of {alarms.trials} clean crops, more than {100 * _MOST_ALARMS:g} %"
            found.append(Suspicion("detector-alarms", f"profile {clean.profile}: the detector flags {share}"))
    return found
