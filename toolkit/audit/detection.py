"""What a detector costs and what it finds: false alarms on clean crops, detection of probes, its threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.plan import GOALS, Goal, Scenario
from toolkit.audit.replay import CleanRun, Replay
from toolkit.errors import InputError, InsufficientError
from toolkit.profiles.profile import Profile
from toolkit.statistics.intervals import Rate

# Where the ROC is read.
FALSE_ALARMS = (0.01, 0.05)
# Rule of three: fewer clean crops than this over the rate could not show it even without a single false alarm.
_CROPS_TIMES_RATE = 3


@dataclass(frozen=True)
class DetectionPoint:
    """One point of a detector's ROC.

    Attributes:
        false_alarm: the rate asked for.
        threshold: that has at most this rate on the run's distinct clean crops; None where they are too few.
        detected: of the probes whose decision is at the goal, those that score above the threshold.
    """

    false_alarm: float
    threshold: float | None
    detected: Rate | None


@dataclass(frozen=True)
class DetectionResult:
    """The detection of one scenario's probes, of those that would succeed if there were no detector.

    They are the 8-bit probes of correctly decided pairs whose decision is at the goal. `deployed` is the share of them
    that the profile's own threshold notices.
    """

    attack: str
    knowledge: str
    known: str
    profile: str
    goal: Goal
    deployed: Rate
    points: tuple[DetectionPoint, ...]


@dataclass(frozen=True)
class DetectorCalibration:
    """A detector's threshold, and the false alarms that it raises on the crops that it was chosen on."""

    target: float
    threshold: float
    false_alarm: Rate


def detection_results(
    outcomes: Sequence[tuple[Scenario, Replay]],
    clean: Mapping[Profile, CleanRun],
    genuine: NDArray[np.bool_],
) -> list[DetectionResult]:
    """Both goals of each scenario whose profile has a detector."""
    results = []
    for scenario, replay in outcomes:
        run = clean[scenario.profile]
        if not np.isfinite(run.alarm):
            continue
        for goal, of_goal in zip(GOALS, (genuine, ~genuine), strict=True):
            scores = replay.scores[of_goal & run.correct & replay.at_goal]
            results.append(
                DetectionResult(
                    scenario.attack.name,
                    scenario.knowledge,
                    scenario.known.name,
                    scenario.profile.name,
                    goal,
                    _above(scores, run.alarm),
                    tuple(_point(scores, run.scores, rate) for rate in FALSE_ALARMS),
                )
            )
    return results


def _point(scores: NDArray[np.float64], clean: NDArray[np.float64], rate: float) -> DetectionPoint:
    if len(clean) * rate < 1:
        return DetectionPoint(rate, None, None)
    threshold = score_threshold(clean, rate)
    return DetectionPoint(rate, threshold, _above(scores, threshold))


def score_threshold(clean: NDArray[np.float64], false_alarm: float) -> float:
    """The threshold in the middle of the gap above which at most the share `false_alarm` of clean scores (n,) lies."""
    ordered = np.sort(np.asarray(clean, np.float64))
    # The tolerance is for products such as 0.05 * 60, which is 3.
    above = math.floor(false_alarm * len(ordered) + 1e-9)
    return float(ordered[len(ordered) - 1 - above] + ordered[min(len(ordered) - above, len(ordered) - 1)]) / 2


def calibrate_detector(clean: NDArray[np.float64], false_alarm: float) -> DetectorCalibration:
    """Choose a detector's threshold on the scores (n,) of distinct clean crops.

    Raises:
        InputError: the rate is not between 0 and 1.
        InsufficientError: there are fewer than 3 / `false_alarm` crops.
    """
    if not 0 < false_alarm < 1:
        raise InputError(f"a false alarm rate of {false_alarm:g} cannot be held; it must lie between 0 and 1")
    needed = math.ceil(_CROPS_TIMES_RATE / false_alarm - 1e-9)
    if len(clean) < needed:
        raise InsufficientError(
            f"a false alarm rate of {false_alarm:g} needs at least {needed} clean crops (rule of three), and there are "
            f"{len(clean)}; these support a rate of {_CROPS_TIMES_RATE / max(len(clean), 1):.2g} at best"
        )
    threshold = float(f"{score_threshold(clean, false_alarm):.6g}")
    return DetectorCalibration(false_alarm, threshold, _above(clean, threshold))


def _above(scores: NDArray[np.float64], threshold: float) -> Rate:
    return Rate(int(np.sum(scores > threshold)), len(scores))
