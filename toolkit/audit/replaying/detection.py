"""Detection: false alarms of a detector on clean crops, its detection rate of probes, and its threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.run import CleanRun
from toolkit.audit.plan import GOALS, Goal, Knowledge, Scenario
from toolkit.audit.replaying.replay import Replay
from toolkit.errors import InputError, InsufficientError
from toolkit.profiles.profile import Profile
from toolkit.statistics.bounded import DRAWS, Bound, Members, bound_at, bounded_threshold, rounded_down
from toolkit.statistics.calibration import ThresholdRule
from toolkit.statistics.intervals import Rate

# The detection rate is reported at these false alarm rates.
FALSE_ALARMS = (0.01, 0.05)
# Rule of three: with n crops and no false alarm, the 95 % upper bound of the rate is about 3 / n.
_CROPS_TIMES_RATE = 3


@dataclass(frozen=True)
class DetectionPoint:
    """One point of a detector's ROC.

    Attributes:
        false_alarm: the false alarm rate.
        threshold: the point estimate of the threshold: it has at most this rate on the run's distinct clean crops. None
            if there are too few.
        detected: probes with a score above the threshold, over probes that reach the goal.
    """

    false_alarm: float
    threshold: float | None
    detected: Rate | None


@dataclass(frozen=True)
class DetectionResult:
    """The detection of one scenario's probes.

    It counts the 8-bit probes that would succeed without the detector: they reach the goal, and the clean pair is
    decided correctly.

    Attributes:
        attack, knowledge, known, profile, goal: the scenario, see `ScenarioResult`.
        deployed: the share that is detected at the profile's own threshold.
        points: the share that is detected at other false alarm rates.
    """

    attack: str
    knowledge: Knowledge
    known: str
    profile: str
    goal: Goal
    deployed: Rate
    points: tuple[DetectionPoint, ...]


@dataclass(frozen=True)
class DetectorCalibration:
    """A calibrated threshold of a detector.

    Attributes:
        target: the requested false alarm rate.
        rule: what is at most `target`: the upper bound of the true rate, or only the rate on these crops.
        threshold: the threshold.
        false_alarm: false alarms at this threshold, on the crops that it was chosen on.
        bound: the upper bound of the true rate at this threshold.
        point_estimate: the point estimate of the threshold, for comparison.
    """

    target: float
    rule: ThresholdRule
    threshold: float
    false_alarm: Rate
    bound: Bound
    point_estimate: float


def detection_results(
    outcomes: Sequence[tuple[Scenario, Replay]],
    clean: Mapping[Profile, CleanRun],
    genuine: NDArray[np.bool_],
) -> list[DetectionResult]:
    """Compute the detection for each goal of every scenario whose profile has a detector.

    Args:
        outcomes: the results of all scenarios on n pairs.
        clean: the clean run of each deployed profile.
        genuine: (n,), whether each pair is of one person.
    """
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
    """Choose a threshold so that at most the share `false_alarm` of these clean scores (n,) is above it.

    The threshold is in the middle between the two nearest scores. It is a point estimate: the true rate is above the
    target about as often as below.
    """
    ordered = np.sort(clean)
    # The tolerance is for rounding errors of products such as 0.05 * 60, which must give 3.
    above = math.floor(false_alarm * len(ordered) + 1e-9)
    return float(ordered[len(ordered) - 1 - above] + ordered[min(len(ordered) - above, len(ordered) - 1)]) / 2


def calibrate_detector(
    clean: NDArray[np.float64],
    false_alarm: float,
    confidence: float = 0.95,
    members: Members | None = None,
    *,
    point_estimate: bool = False,
    seed: int = 0,
    draws: int = DRAWS,
) -> DetectorCalibration:
    """Choose a detector's threshold for a false alarm rate. A crop is flagged strictly above the threshold.

    By default the upper bound of the true rate is at most `false_alarm`: see `toolkit.statistics.bounded`.

    Args:
        clean: (n,), attack scores of distinct clean crops.
        false_alarm: the false alarm rate, between 0 and 1.
        confidence: the one-sided confidence of the bound, at least 0.5 and below 1.
        members: the person in each crop; None if every crop is independent of the others.
        point_estimate: hold the rate on these crops only. This is not conservative.
        seed: the seed of the bootstrap over people.
        draws: the number of resamples.

    Raises:
        InputError: the rate is not between 0 and 1.
        InsufficientError: there are too few crops to support the rate, or the threshold would be zero.
    """
    if not 0 < false_alarm < 1:
        raise InputError(f"the false alarm rate is {false_alarm:g}; it must be between 0 and 1")
    needed = math.ceil(_CROPS_TIMES_RATE / false_alarm - 1e-9)
    if point_estimate and len(clean) < needed:
        raise InsufficientError(
            f"a false alarm rate of {false_alarm:g} needs at least {needed} clean crops (rule of three), but there are "
            f"{len(clean)}; give more pairs, or a rate of at least {_CROPS_TIMES_RATE / max(len(clean), 1):.2g}"
        )
    # The detector flags large scores; bounds are of small values.
    falling = -np.asarray(clean, np.float64)
    estimate = -rounded_down(-score_threshold(clean, false_alarm)) if len(clean) else np.nan
    if point_estimate:
        threshold = estimate
        bound = bound_at(falling, members, -threshold, false_alarm, confidence, seed=seed, draws=draws)
    else:
        least, bound = bounded_threshold(
            falling,
            members,
            false_alarm,
            confidence,
            name="a false alarm rate",
            what="clean crops",
            seed=seed,
            draws=draws,
        )
        threshold = -least
    if threshold <= 0:
        raise InsufficientError(
            "the threshold would be 0, because the squeezers do not move these crops; choose other squeezers"
        )
    rule: ThresholdRule = "point estimate" if point_estimate else "upper bound"
    return DetectorCalibration(false_alarm, rule, threshold, _above(clean, threshold), bound, estimate)


def _above(scores: NDArray[np.float64], threshold: float) -> Rate:
    return Rate(int(np.sum(scores > threshold)), len(scores))
