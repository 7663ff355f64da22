"""Error rates of one deployed profile on clean pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.run import CleanRun
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair
from toolkit.statistics.bootstrap import Det, Identities, Statistic, det_band, identity_bootstrap
from toolkit.statistics.bounded import Members
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import OperatingPoint, d_prime, eer, fnmr_at_fmr

# The FNMR is reported at these FMRs if there are enough impostor pairs.
FMR_TARGETS = (1e-2, 1e-3)


@dataclass(frozen=True)
class CleanResult:
    """Clean error rates of one deployed profile.

    Attributes:
        profile: name of the profile.
        fnmr, fmr, accuracy: rates at the manifest's threshold. They ignore the detector.
        eer, d_prime: None if genuine or impostor pairs are missing; d' also if the distances do not vary.
        false_alarm: share of distinct clean crops that the detector flags; None without a detector.
        fnmr_people, fmr_people, accuracy_people: 95 % intervals by the bootstrap over people, because errors of the
            same person are not independent. None if people have no names, or if no pair or every pair is wrong.
        at_fmr: FNMR at the point estimate of the threshold for each FMR; None if there are too few impostor pairs. The
            true FMR there is above the target about as often as below: `calibrate` bounds it.
        det: the DET curve with its band; None if there are too few pairs.
    """

    profile: str
    fnmr: Rate
    fmr: Rate
    accuracy: Rate
    eer: float | None
    false_alarm: Rate | None
    d_prime: float | None
    fnmr_people: tuple[float, float] | None
    fmr_people: tuple[float, float] | None
    accuracy_people: tuple[float, float] | None
    at_fmr: tuple[tuple[float, OperatingPoint | None], ...]
    det: Det | None


def clean_result(
    profile: str,
    clean: CleanRun,
    genuine: NDArray[np.bool_],
    people: tuple[Identities, Identities] | None = None,
    seed: int = 0,
) -> CleanResult:
    """Compute the clean error rates of one profile.

    Args:
        profile: name of the profile.
        clean: its clean run on n pairs.
        genuine: (n,), whether each pair is of one person.
        people: see `people_of`.
        seed: seed of the bootstrap.

    Raises:
        InputError: the names of the people in a pair contradict its label.
    """
    wrong, d = ~clean.correct, clean.distances
    fnmr, fmr = (Rate(int(wrong[kind].sum()), int(kind.sum())) for kind in (genuine, ~genuine))
    accuracy = Rate(int(clean.correct.sum()), len(genuine))
    both = bool(genuine.any() and not genuine.all())
    apart = d_prime(d, genuine) if both and min(fnmr.trials, fmr.trials) > 1 else np.inf

    def interval(statistic: Statistic, rate: Rate) -> tuple[float, float] | None:
        if people is None or rate.successes in (0, rate.trials):
            return None
        # The bootstrap takes distances. These stand for the decisions that were made: 0 for "same", 1 for "different".
        decided = np.where(clean.correct == genuine, 0.0, 1.0)
        generator = np.random.default_rng(seed)
        return identity_bootstrap(decided, genuine, *people, threshold=0.5, statistic=statistic, rng=generator)

    return CleanResult(
        profile=profile,
        fnmr=fnmr,
        fmr=fmr,
        accuracy=accuracy,
        eer=float(eer(d, genuine)) if both else None,
        false_alarm=clean.false_alarms,
        d_prime=apart if np.isfinite(apart) else None,
        fnmr_people=interval("fnmr", fnmr),
        fmr_people=interval("fmr", fmr),
        accuracy_people=interval("accuracy", accuracy),
        at_fmr=tuple((target, fnmr_at_fmr(d, genuine, target)) for target in FMR_TARGETS) if both else (),
        det=det_band(d, genuine, people, rng=np.random.default_rng(seed)),
    )


def people_of(pairs: Sequence[Pair]) -> tuple[Identities, Identities] | None:
    """Number the people in the pairs' probes and references, (n,) and (n,); None if a pair does not name them."""
    names = [name for pair in pairs for name in (pair.probe_identity, pair.reference_identity)]
    if not names or None in names:
        return None
    numbers = np.unique(np.array(names, str), return_inverse=True)[1].reshape(-1, 2)
    return numbers[:, 0], numbers[:, 1]


def pair_members(crops: CropSet) -> Members:
    """Return the two people of each pair, or its two images if a pair does not name its people."""
    people = people_of(crops.pairs)
    return Members("images", (crops.index[:, 0], crops.index[:, 1])) if people is None else Members("people", people)


def crop_members(crops: CropSet) -> Members:
    """Return the person in each distinct crop, or the crop itself if a pair does not name its people."""
    people = people_of(crops.pairs)
    numbers = np.arange(len(crops.names))
    if people is None:
        return Members("images", (numbers,))
    for side in (0, 1):
        numbers[crops.index[:, side]] = people[side]
    return Members("people", (numbers,))
