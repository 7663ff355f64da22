"""What an audit says of detectors, on scores that are known and on a verifier that can be run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from tests.models import write_people
from tests.progress import Silent
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.gaussian import Gaussian
from toolkit.audit.clean.result import clean_result, crop_members
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.evaluate import calibrate_profile
from toolkit.audit.plan import Scenario
from toolkit.audit.replaying.detection import (
    DetectionPoint,
    DetectionResult,
    DetectorCalibration,
    calibrate_detector,
    detection_results,
    score_threshold,
)
from toolkit.audit.replaying.replay import Replay
from toolkit.audit.request import Request
from toolkit.audit.results.assessment import scenario_results
from toolkit.audit.run import run_audit
from toolkit.defenses.median import Median
from toolkit.documents import to_json
from toolkit.errors import InputError, InsufficientError, UsageError
from toolkit.faces.pairs import load_pairs
from toolkit.profiles.detector import Detector
from toolkit.profiles.harden import deploy, write_hardened
from toolkit.profiles.profile import Profile, find_profile, read_profile
from toolkit.report.assessment import print_assessment
from toolkit.report.schemas import report_schema
from toolkit.statistics.bounded import Members, bound_at, bounded_threshold
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.crops import crop_for
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import read_model

WATCHED = Profile("watched", "", (), "", detector=Detector((Median(3),), 0.5, 0.05))


def test_the_threshold_flags_at_most_the_stated_share() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(100.0))
    assert score_threshold(scores, 0.05) == 94.5
    result = calibrate_detector(scores, 0.05, point_estimate=True)
    assert (result.threshold, result.false_alarm, result.rule) == (94.5, Rate(5, 100), "point estimate")
    assert calibrate_detector(np.ones(60), 0.05).false_alarm == Rate(0, 60), "equal scores are not above each other"


def test_the_upper_bound_of_a_detectors_false_alarms_is_held() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1000.0))
    result = calibrate_detector(scores, 0.05)
    held = max(k for k in range(50) if Rate(k, 1000).upper_bound() <= 0.05)
    assert (result.threshold, result.false_alarm) == (999.0 - held, Rate(held, 1000))
    assert result.bound.upper == pytest.approx(Rate(held, 1000).upper_bound())
    assert result.point_estimate == 949.5
    # Ten crops of each of 100 people with one score are 100 crops.
    people = Members("people", (np.floor(scores / 10).astype(int),))
    repeated = calibrate_detector(np.floor(scores / 10) + 1, 0.05, members=people)
    assert repeated.bound.binding == "effective"
    assert repeated.false_alarm.successes < held


# Of resamples of 12 crops, 3 of them flagged, 94.56 % have at most 5 flagged: so near to it, their seed decides.
NEAR = 0.9456


def test_a_point_estimate_comes_with_its_bound() -> None:
    scores, members = np.arange(1.0, 13), Members("images", (np.arange(12),))
    found = [
        calibrate_detector(scores, 0.25, NEAR, members, point_estimate=True, seed=seed, draws=200) for seed in range(6)
    ]
    for seed, result in enumerate(found):
        assert result.threshold == 9.5
        assert result.bound == bound_at(-scores, members, -9.5, 0.25, NEAR, seed=seed, draws=200)
    assert {result.bound.bootstrap for result in found} == {5 / 12, 6 / 12}
    usual = [calibrate_detector(scores, 0.25, NEAR, members, point_estimate=True, **seed) for seed in ({}, {"seed": 0})]
    assert usual[0] == usual[1]


def test_a_bounded_threshold_is_that_of_the_draws_asked_for() -> None:
    scores, members = np.arange(1.0, 13), Members("images", (np.arange(12),))
    bounds = []
    for seed in range(5):
        result = calibrate_detector(scores, 0.5, 0.8, members, seed=seed, draws=200)
        least, bound = bounded_threshold(-scores, members, 0.5, 0.8, seed=seed, draws=200)
        assert (result.threshold, result.bound) == (-least, bound)
        bounds.append(bound.bootstrap)
    assert set(bounds) == {5 / 12, 6 / 12}, "the draws must matter here"


def test_where_none_may_be_flagged_the_threshold_is_the_largest_score() -> None:
    assert score_threshold(np.array([0.0, 2.0, 1.0]), 0.1) == 2


def test_a_detectors_threshold_is_rounded_to_fewer_alarms() -> None:
    scores = 1 + np.arange(100) * 1e-8
    for point_estimate in (False, True):
        result = calibrate_detector(scores, 0.05, point_estimate=point_estimate)
        assert result.threshold == 1.00001
        assert result.false_alarm.successes == 0


def test_scores_of_zero_give_no_threshold() -> None:
    with pytest.raises(InsufficientError, match="squeezers do not move these crops"):
        calibrate_detector(np.zeros(60), 0.05)


def test_what_the_crops_cannot_show_is_refused() -> None:
    with pytest.raises(InsufficientError, match=r"needs at least 60 clean crops .* there are 59"):
        calibrate_detector(np.ones(59), 0.05, point_estimate=True)
    with pytest.raises(
        InsufficientError, match=r"^a false alarm rate of .* needs at least 59 clean crops, but there are 58"
    ):
        calibrate_detector(np.ones(58), 0.05)
    for rate in (0.0, 1.0, 1.5):
        with pytest.raises(InputError, match=f"the false alarm rate is {rate:g}; it must be between 0 and 1"):
            calibrate_detector(np.ones(59), rate)
    with pytest.raises(InsufficientError, match="there are 0"):
        calibrate_detector(np.zeros(0), 0.05)


def known_case() -> tuple[Scenario, Replay, CleanRun]:
    """Five genuine pairs: wrong when clean, flagged when clean, broken unseen, broken seen, not broken."""
    correct = np.array([False, True, True, True, True])
    at_goal, scores = np.array([True, True, True, True, False]), np.array([0.0, 0.9, 0.2, 0.8, 0.0])
    flagged = np.array([False, True, False, False, False])
    zeros = np.zeros(5)
    replay = Replay(
        crafted=at_goal, passed=(at_goal & (scores <= 0.5))[:, None], at_goal=at_goal, scores=scores,
        success_float=at_goal,
        l2=zeros, linf=zeros, rms=zeros, l2_float=zeros, l2_defended=zeros, evaluations=np.ones(5, np.int64),
    )  # fmt: skip
    clean_scores = np.concatenate([np.linspace(0, 0.3, 58), [0.6, 0.7]])
    clean = CleanRun(np.zeros((0, 1), np.float32), zeros, correct, clean_scores, 0.5, correct & ~flagged)
    return Scenario(Gaussian(), "zero", WATCHED, WATCHED), replay, clean


def test_a_flagged_probe_is_no_success_and_a_pair_flagged_when_clean_is_not_eligible() -> None:
    scenario, replay, clean = known_case()
    genuine = np.ones(5, np.bool_)
    (result,) = scenario_results(scenario, replay, clean, genuine)
    assert (result.pairs, result.clean_errors, result.clean_flagged, result.eligible) == (5, 1, 1, 3)
    assert result.asr == Rate(1, 3)
    both = clean_result("watched", clean, genuine)
    assert both.fnmr == Rate(1, 5), "a false alarm is no false non-match"
    assert both.false_alarm == Rate(2, 60)


def test_detection_is_of_the_probes_that_would_succeed_without_it() -> None:
    scenario, replay, clean = known_case()
    genuine = np.ones(5, np.bool_)
    dodging, impersonation = detection_results([(scenario, replay)], {WATCHED: clean}, genuine)
    assert dodging.deployed == Rate(2, 3)
    at_1, at_5 = dodging.points
    assert (at_1.threshold, at_1.detected) == (None, None), "60 crops show no rate of 1 %"
    # Three of sixty may lie above: between the fourth and the third largest.
    assert at_5.threshold == pytest.approx((clean.scores[56] + clean.scores[57]) / 2)
    assert at_5.detected == Rate(2, 3)
    assert impersonation.deployed == Rate(0, 0)
    bare = replace(clean, alarm=np.inf)
    assert not detection_results([(scenario, replay)], {WATCHED: bare}, genuine)


def test_a_hundred_crops_show_one_in_a_hundred() -> None:
    scenario, replay, clean = known_case()
    hundred = replace(clean, scores=np.arange(100) / 100)
    (dodging, _) = detection_results([(scenario, replay)], {WATCHED: hundred}, np.ones(5, np.bool_))
    assert dodging == DetectionResult(
        "gaussian", "zero", "watched", "watched", "dodging", Rate(2, 3),
        (
            DetectionPoint(0.01, pytest.approx(0.985), Rate(0, 3)),
            DetectionPoint(0.05, pytest.approx(0.945), Rate(0, 3)),
        ),
    )  # fmt: skip


def test_a_scenario_without_a_detector_does_not_end_the_list() -> None:
    scenario, replay, clean = known_case()
    bare = Profile("bare", "", (), "")
    outcomes = [(replace(scenario, profile=bare), replay), (scenario, replay)]
    runs = {bare: replace(clean, alarm=np.inf), WATCHED: clean}
    found = detection_results(outcomes, runs, np.ones(5, np.bool_))
    assert [(d.profile, d.goal) for d in found] == [("watched", "dodging"), ("watched", "impersonation")]


PROFILE = """\
schema = 1
name = "mine"
[[defense]]
name = "noise"
sigma = 0.05
[detector]
threshold = 1.0
false_alarm = 0.5
[[detector.squeezer]]
name = "median"
"""


def test_a_profile_is_calibrated_in_its_file_on_the_draws_of_a_seed(tmp_path: Path) -> None:
    model, profile = write_people(tmp_path, photos=4), tmp_path / "mine.toml"

    class Counted(Silent):
        def counter(self, name: str) -> Callable[[int, int | None], None]:
            return lambda done, total: counted.append((done, total))

    def calibrated(rate: float = 0.5, **changes: Any) -> DetectorCalibration:
        profile.write_text(PROFILE)
        return calibrate_profile(profile, model, rate, tmp_path, **changes)

    counted: list[tuple[int, int | None]] = []
    result = calibrated(0.25, seed=1, progress=Counted(), point_estimate=True)
    assert counted[-1] == (12, 12), "every face is aligned once"
    assert (result.target, result.rule, result.false_alarm) == (0.25, "point estimate", Rate(3, 12))
    assert result.threshold == result.point_estimate
    said = "calibrated for linear on 12 crops, point estimate, not conservative"
    assert f"threshold = {result.threshold} # {said}\nfalse_alarm = 0.25\n" in profile.read_text()
    # The scores are those of the noise of this seed, and of no other verifier; the photographs are those of the pairs.
    chosen, manifest = read_profile(profile), read_manifest(model)
    crops = crop_for(manifest, load_pairs(tmp_path))

    def scores_of(seed: int) -> np.ndarray:
        return run_clean(deploy(read_model(manifest), manifest, chosen, seed=seed), crops, manifest.decision).scores

    scores = scores_of(1)
    members = crop_members(crops)
    assert calibrate_detector(scores, 0.25, members=members, point_estimate=True, seed=1) == result
    bounded = calibrated(seed=1, confidence=0.8)
    assert "linear on 12 crops, at a confidence of 80 %\nfalse_alarm = 0.5\n" in profile.read_text()
    assert bounded == calibrate_detector(scores, 0.5, 0.8, members, seed=1)
    assert (bounded.rule, bounded.bound.confidence, bounded.bound.unit) == ("upper bound", 0.8, "images")
    assert bounded.bound.upper <= 0.5
    assert calibrated(seed=0) == calibrated() != calibrated(seed=1), "another seed draws other noise"
    assert calibrated().bound.confidence == 0.95
    for seed in (1, 2):
        near = calibrated(0.25, seed=seed, confidence=NEAR, point_estimate=True)
        assert near == calibrate_detector(scores_of(seed), 0.25, NEAR, members, point_estimate=True, seed=seed)
    with pytest.raises(InsufficientError, match=r"rate of 0\.05 .* needs at least 59"):
        calibrate_profile(profile, model, pairs=tmp_path)
    profile.write_text('schema = 1\nname = "mine"\n')
    with pytest.raises(UsageError, match=r"has no \[detector\]"):
        calibrate_profile(profile, model, 0.25, tmp_path)


def test_an_audit_of_a_detector_is_reported_and_validates(request_: Request, tmp_path: Path) -> None:
    watched = replace(WATCHED, detector=Detector((Median(3),), 0.02, 0.05), sha256="0" * 64)
    request = replace(request_, profiles=(find_profile("none"), watched))
    assessment = run_audit(request, tmp_path / "run", Silent())
    jsonschema.validate(json.loads(to_json(assessment)), report_schema())
    asr = {(s.profile, s.knowledge, s.goal): s for s in assessment.scenarios}
    detected = {(d.knowledge, d.goal): d for d in assessment.detection}
    assert set(detected) == {("zero", "dodging"), ("zero", "impersonation"), ("perfect", "dodging"),
                             ("perfect", "impersonation")}  # fmt: skip
    # Noise that breaks this verifier moves it through a median too; an attacker who knows sends nothing that is seen.
    zero = asr["watched", "zero", "dodging"]
    assert detected["zero", "dodging"].deployed.successes > 0
    assert zero.asr.successes < zero.crafted
    assert detected["perfect", "dodging"].deployed.successes == 0
    assert assessment.clean[0].false_alarm is None
    assert assessment.clean[1].false_alarm is not None
    text = io.StringIO()
    print_assessment(assessment, Console(file=text, width=80), [])
    assert "detected % of the probes" in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 80
    assert "…" not in text.getvalue()


def test_a_hardened_file_with_a_detector_is_audited_with_it_and_gives_no_gradients(
    request_: Request, tmp_path: Path
) -> None:
    watched = replace(WATCHED, detector=Detector((Median(3),), 0.02, 0.05))
    hardened = write_hardened(request_.manifest, watched, tmp_path / "hardened.onnx")
    request = replace(
        request_,
        manifest=read_manifest(hardened.path),
        profiles=(find_profile("none"),),
        attacks=(*request_.attacks, Fgsm()),
    )
    assessment = run_audit(request, tmp_path / "run", Silent())
    assert assessment.clean[0].false_alarm is not None
    assert {d.attack for d in assessment.detection} == {"gaussian"}
    assert "gradients of a detector inside the verifier's file" in assessment.unavailable[0].reason
