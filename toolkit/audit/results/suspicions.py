"""Warnings about the data of a run itself: what makes its numbers worth nothing, whatever the attacks did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
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
    found, faces, total = [], run.faces, len(run.pairs)
    crops = list(zip(faces.probe_crops, faces.reference_crops, strict=True))
    times = Counter(frozenset(pair) for pair in crops)
    repeated = sum(count - 1 for count in times.values())
    if repeated:
        worst, count = times.most_common(1)[0]
        example = next(name for name, pair in zip(run.pairs, crops, strict=True) if frozenset(pair) == worst)
        text = f"{repeated} of {total} pairs repeat the two images of another pair; {example} occurs {count} times"
        found.append(Suspicion("duplicate-pairs", text))
    same = [name for name, (probe, reference) in zip(run.pairs, crops, strict=True) if probe == reference]
    if same:
        text = f"{len(same)} of {total} pairs compare an image with itself, for example {same[0]}"
        found.append(Suspicion("same-image", text))
    sides = zip(faces.probe_people, faces.reference_people, strict=True)
    people = Counter(person for pair in sides for person in {*pair} - {""})
    for person, count in people.most_common(1):
        if total > 1 and count > _MOST_OF_ONE * total:
            text = f"{person} is in {count} of {total} pairs; the results are about this person"
            found.append(Suspicion("one-person", text))
    return found


def _of_detectors(run: Run) -> list[Suspicion]:
    found = []
    for clean in run.assessment.clean:
        alarms: Rate | None = clean.false_alarm
        if alarms is not None and alarms.value is not None and alarms.value > _MOST_ALARMS:
            share = f"{alarms.successes} of {alarms.trials} clean crops, more than {100 * _MOST_ALARMS:g} %"
            found.append(Suspicion("detector-alarms", f"profile {clean.profile}: the detector flags {share}"))
    return found
