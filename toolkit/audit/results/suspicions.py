"""Warnings about the data of a run itself: what makes its numbers worth nothing, whatever the attacks did."""

from __future__ import annotations

from collections import Counter

import numpy as np

from toolkit.audit.clean.suspicions import Suspicion, clean_suspicions
from toolkit.audit.results.outcomes import CleanOutcomes, Run
from toolkit.statistics.intervals import Rate

# A detector that flags more of the clean crops than this is suspicious.
_MOST_ALARMS = 0.1
# If one person is in more than this share of the pairs, the run is about that person.
_MOST_OF_ONE = 0.5


def suspicions(run: Run) -> tuple[Suspicion, ...]:
    """Return what is suspicious about the data of a finished run, the gravest first.

    It looks at the clean results of every deployed profile, and at the list of pairs. It does not look at attacks.

    Args:
        run: a finished run.
    """
    return (*(s for clean in run.clean for s in _of_clean(run, clean)), *_of_pairs(run), *_of_detectors(run))


def _of_clean(run: Run, clean: CleanOutcomes) -> tuple[Suspicion, ...]:
    distances, threshold = np.asarray(clean.distances, np.float64), run.assessment.target.threshold
    return clean_suspicions(distances, run.genuine, clean.correct, threshold, f"profile {clean.profile}")


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
