"""Detection: false alarms of a detector on clean crops, its detection rate of probes, and its threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.plan import GOALS, Goal, Scenario
from toolkit.audit.replaying.replay import Replay
from toolkit.errors import InputError, InsufficientError, UsageError
from toolkit.faces.pairs import PairSet, find_pairs
from toolkit.profiles.detector import write_threshold
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import Profile, read_profile
from toolkit.progress import SILENT, Progress
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.crops import crop_for
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import read_model

# The detection rate is reported at these false alarm rates.
FALSE_ALARMS = (0.01, 0.05)
# Rule of three: with n crops and no false alarm, the 95 % upper bound of the rate is about 3 / n.
_CROPS_TIMES_RATE = 3


@dataclass(frozen=True)
class DetectionPoint:
    """One point of a detector's ROC.

    Attributes:
        false_alarm: the false alarm rate.
        threshold: the threshold with at most this rate on the run's distinct clean crops; None if there are too few.
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
    knowledge: str
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
        threshold: the threshold.
        false_alarm: false alarms at this threshold, on the crops that it was chosen on.
    """

    target: float
    threshold: float
    false_alarm: Rate


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
    """Choose a threshold so that at most the share `false_alarm` of clean scores (n,) is above it.

    The threshold is in the middle between the two nearest scores.
    """
    ordered = np.sort(clean)
    # The tolerance is for rounding errors of products such as 0.05 * 60, which must give 3.
    above = math.floor(false_alarm * len(ordered) + 1e-9)
    return float(ordered[len(ordered) - 1 - above] + ordered[min(len(ordered) - above, len(ordered) - 1)]) / 2


def calibrate_detector(clean: NDArray[np.float64], false_alarm: float) -> DetectorCalibration:
    """Choose a detector's threshold for a false alarm rate.

    Args:
        clean: (n,), attack scores of distinct clean crops.
        false_alarm: the false alarm rate, between 0 and 1.

    Raises:
        InputError: the rate is not between 0 and 1.
        InsufficientError: there are fewer than 3 / `false_alarm` crops.
    """
    if not 0 < false_alarm < 1:
        raise InputError(f"the false alarm rate is {false_alarm:g}; it must be between 0 and 1")
    needed = math.ceil(_CROPS_TIMES_RATE / false_alarm - 1e-9)
    if len(clean) < needed:
        raise InsufficientError(
            f"a false alarm rate of {false_alarm:g} needs at least {needed} clean crops (rule of three), but there are "
            f"{len(clean)}; give more pairs, or a rate of at least {_CROPS_TIMES_RATE / max(len(clean), 1):.2g}"
        )
    threshold = float(f"{score_threshold(clean, false_alarm):.6g}")
    return DetectorCalibration(false_alarm, threshold, _above(clean, threshold))


def _above(scores: NDArray[np.float64], threshold: float) -> Rate:
    return Rate(int(np.sum(scores > threshold)), len(scores))


def calibrate_profile(
    profile: Path,
    model: str | Path | Manifest,
    false_alarm: float = 0.05,
    pairs: PairSet | Path | str | None = None,
    *,
    seed: int = 0,
    progress: Progress = SILENT,
) -> DetectorCalibration:
    """Find a detector's threshold for a false alarm rate, and write it into the profile's file.

    The rest of the file stays the same.

    Args:
        profile: the .toml file of a profile with a [detector].
        model: the verifier: a shipped model's name, an .onnx file with a manifest beside it, or a manifest.
        false_alarm: the largest share of clean images that may be flagged, between 0 and 1.
        pairs: from `load_pairs`, or a path to pairs. Default: the generated faces that ship with the toolkit.
        seed: seed of a random profile's draws.
        progress: shows the alignment of the faces.

    Raises:
        UsageError: the profile has no detector.
        InsufficientError: there are too few clean crops to show the rate.
        SixpixelsError: the model, the profile or the pairs cannot be used.
    """
    chosen, manifest = read_profile(profile), find_manifest(model)
    if chosen.detector is None:
        raise UsageError(f"{profile}: has no [detector]; add one to calibrate")
    verifier = deploy(read_model(manifest), manifest, chosen, seed=seed)
    crops = crop_for(manifest, find_pairs(pairs), progress)
    result = calibrate_detector(run_clean(verifier, crops, manifest.decision).scores, false_alarm)
    write_threshold(profile, result.threshold, false_alarm, f"for {manifest.name} on {result.false_alarm.trials} crops")
    return result
