"""Sanity checks: each must notice the fault that it is there for, and let sound results pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest

from tests.models import Linear
from toolkit.attacks.base import CLEARLY, Crafted, Needs, Task, Traits, margins
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.glasses import Glasses
from toolkit.attacks.pgd import Pgd
from toolkit.attacks.universal import Universal
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.crafting.craft import pair_generator
from toolkit.audit.plan import Knowledge, Scenario
from toolkit.audit.replaying import gradients
from toolkit.audit.replaying.gradients import _gain
from toolkit.audit.replaying.replay import Replay
from toolkit.audit.replaying.reruns import attack_checks
from toolkit.audit.replaying.sanity import Check, Outcome, Sample, Subject, check_outcomes
from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.documents import to_json
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import Pair, embedded_pairs, load_pairs
from toolkit.pixels import to_8bit, to_unit
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import Profile, find_profile
from toolkit.report.schemas import report_schema
from toolkit.verifiers.manifest import Decision, find_manifest
from toolkit.verifiers.parity import rounding_of
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.white_box import WhiteBox

NONE = Profile("none", "", (), "")
MANIFEST = find_manifest("facenet-mini")


def outcome(
    success: list[bool], attack: Any, knowledge: Knowledge = "perfect", linf: float = 0.1, profile: Profile = NONE
):  # type: ignore[no-untyped-def]
    n = len(success)
    replayed = Replay(
        crafted=np.array(success), passed=np.array(success)[:, None], at_goal=np.array(success), scores=np.zeros(n),
        success_float=np.array(success), l2=np.ones(n),
        linf=np.full(n, linf), rms=np.ones(n), l2_float=np.ones(n), l2_defended=np.ones(n),
        evaluations=np.ones(n, np.int64),
    )  # fmt: skip
    return Scenario(attack, knowledge, profile, profile), replayed


def checked(*outcomes: Any) -> dict[str, Check]:
    n = len(outcomes[0][1].success)
    every = np.ones(n, np.bool_)
    clean = CleanRun(np.zeros((0, 1), np.float32), np.zeros(n), every, np.zeros(n), np.inf, every)
    return {check.name: check for check in check_outcomes(outcomes, {NONE: clean})}


def test_an_iterative_attack_must_do_what_one_step_does() -> None:
    weak, strong = [False] * 10, [True] * 10
    assert not checked(outcome(strong, Fgsm()), outcome(weak, DeepFool()))["iterative"].passed
    assert checked(outcome(strong, Fgsm()), outcome(strong, DeepFool()))["iterative"].passed
    # Three pairs may be chance; what lies outside a ball is not asked of an attack that is bound to it.
    assert checked(outcome([True] * 3 + [False] * 7, Fgsm()), outcome(weak, DeepFool()))["iterative"].passed
    assert checked(outcome(strong, Fgsm(), linf=0.1), outcome(weak, Pgd(epsilon=0.05)))["iterative"].passed
    assert not checked(outcome(strong, Fgsm(), linf=0.04), outcome(weak, Pgd(epsilon=0.05)))["iterative"].passed
    assert "iterative" not in checked(outcome(strong, Fgsm()))
    # A frame on the eyes is not asked for what a change of the whole image does, nor a trained one for what it learned.
    assert "iterative" not in checked(outcome(strong, Fgsm()), outcome(weak, Glasses()))
    assert "iterative" not in checked(outcome(strong, Universal()), outcome(weak, DeepFool()))


def test_who_knows_more_must_not_do_worse() -> None:
    some, all_ = [True] * 4 + [False] * 6, [True] * 10
    assert not checked(outcome(all_, Gaussian(), "zero"), outcome(some, Gaussian()))["adaptive"].passed
    assert checked(outcome(some, Gaussian(), "zero"), outcome(all_, Gaussian()))["adaptive"].passed


def test_checks_of_outcomes_are_those_of_every_profile_in_words_and_numbers() -> None:
    """Of ten pairs the last is not eligible: what happens to it counts for nothing."""
    other = Profile("other", "", (), "")
    some, most = [True] * 2 + [False] * 8, [False] * 2 + [True] * 8
    eligible = np.arange(10) < 9
    clean = CleanRun(np.zeros((0, 1), np.float32), np.zeros(10), eligible, np.zeros(10), np.inf, eligible)
    blind, blind_replay = outcome(most, Gaussian(), "zero", profile=other)
    found = check_outcomes(
        [
            outcome(some, Fgsm()), outcome(most, DeepFool()), outcome(some, Pgd(epsilon=1.0)),
            outcome(most, Gaussian()), outcome(most, Fgsm(), profile=other), outcome(some, DeepFool(), profile=other),
            (replace(blind, known=NONE), blind_replay), outcome(some, Gaussian(), profile=other),
            outcome(most, Gaussian(), "query", profile=other),
        ],
        {NONE: clean, other: clean},
    )  # fmt: skip
    only = "only fgsm succeeds on {} pairs, only deepfool{} on {} pairs"
    assert found == [
        Check("iterative", "none", True, only.format(0, ", pgd", 7)),
        # 7 against 2 may be chance.
        Check("iterative", "other", True, only.format(7, "", 2)),
        Check("adaptive", "gaussian on other", True,
              "only knowledge of none succeeds on 7 pairs, only perfect knowledge on 2 pairs"),
        Check("adaptive", "gaussian on other", True,
              "only knowledge of none succeeds on 0 pairs, only query knowledge on 0 pairs"),
    ]  # fmt: skip


def test_what_a_bound_allows_is_measured_in_its_norm() -> None:
    weak, strong = [False] * 10, [True] * 10
    # The changes of `outcome` have an L2 norm of 1.
    assert checked(outcome(strong, Fgsm()), outcome(weak, Pgd(norm="l2", epsilon=0.5)))["iterative"].passed
    assert not checked(outcome(strong, Fgsm()), outcome(weak, Pgd(norm="l2", epsilon=1.0)))["iterative"].passed
    # A change at the bound is within it, though its norm has rounding errors; so is one within either of two bounds.
    at = 0.05 * (1 + 5e-6)
    assert not checked(outcome(strong, Fgsm(), linf=at), outcome(weak, Pgd(epsilon=0.05)))["iterative"].passed
    bounds = outcome(weak, Pgd(epsilon=0.05)), outcome(weak, Pgd(norm="l2", epsilon=2.0))
    assert not checked(outcome(strong, Fgsm()), *bounds)["iterative"].passed
    # Asked is only what the one step did within the bound, pair by pair.
    assert checked(outcome(weak, Fgsm(), linf=0.04), outcome(weak, Pgd(epsilon=0.05)))["iterative"].passed
    scenario, replayed = outcome(strong, Fgsm())
    mixed = replace(replayed, linf=np.array([0.04] + [0.1] * 9))
    check = checked((scenario, mixed), outcome(weak, Pgd(epsilon=0.05)))["iterative"]
    assert check == Check("iterative", "none", True, "only fgsm succeeds on 1 pairs, only pgd on 0 pairs")
    # An attack without a bound is asked for every pair.
    unbounded = outcome(weak, Pgd(epsilon=0.05)), outcome(weak, DeepFool())
    assert not checked(outcome(strong, Fgsm()), *unbounded)["iterative"].passed


@pytest.fixture(scope="module")
def crops() -> CropSet:
    template = MANIFEST.alignment.template if MANIFEST.alignment else None
    return crop_pairs(load_pairs(embedded_pairs(), limit=12, seed=0), 160, 160, template)


@pytest.fixture(scope="module")
def white_box(facenet_network: Callable[[Any], Any], facenet_mini: TensorFlowVerifier) -> Callable[[str], Seen]:
    @cache
    def make(name: str) -> Any:
        profile = find_profile(name)
        hardened = harden(read_model(MANIFEST), MANIFEST, profile)
        runtime = RuntimeVerifier(MANIFEST, hardened, Execution("cpu", threads=1))
        bare = name == "none"
        original = facenet_mini if bare else TensorFlowVerifier(MANIFEST, profile.tensorflow, facenet_network)
        return profile, WhiteBox(runtime, original)

    return make


@dataclass(frozen=True)
class Seen:
    """A profile to check, and the model that an attacker who knows it sees."""

    profile: Profile
    model: Any
    clean: CleanRun
    samples: tuple[Sample, ...] = ()
    rounding: float = CLEARLY
    of_bytes: bool = False

    @property
    def subject(self) -> Subject:
        return Subject(self.profile, self.clean, self.samples, self.rounding, self.of_bytes)


def answered(asking: Any, model: Any, seed: int) -> list[Check]:
    """The checks of a generator whose jobs run on a model."""
    bench: Any = SimpleNamespace(white_box=lambda _: model, side=lambda *_: model, seed=seed)
    answers = None
    while True:
        try:
            jobs = asking.send(answers)
        except StopIteration as stop:
            found: list[Check] = stop.value
            return found
        answers = [job.decode(job.run(bench)) for job in jobs]


def check_profile(seen: Seen, crops: CropSet, decision: Decision, seed: int) -> list[Check]:
    return answered(gradients.check_profile(seen.subject, crops, decision, seed), seen.model, seed)


def check_attacks(
    seen: Seen, outcomes: Sequence[Outcome], crops: CropSet, decision: Decision, seed: int
) -> list[Check]:
    asking = attack_checks(seen.subject, outcomes, crops, decision, seed)
    return [check for one in asking for check in answered(one, seen.model, seed)]


def subject_of(profile: Profile, model: Any, crops: CropSet) -> Seen:
    return Seen(profile, model, run_clean(model.runtime, crops, MANIFEST.decision))


def looked_at(subject: Seen, crops: CropSet, *attacks: Any) -> dict[str, Check]:
    """The checks of a profile and of attacks that were really run on it."""
    from toolkit.audit.crafting.craft import Chunk, make_task
    from toolkit.audit.replaying.replay import replay_chunk

    rows = np.arange(len(crops.pairs))
    outcomes = []
    for attack in attacks:
        references = subject.clean.embeddings[crops.index[:, 1]]
        task = make_task(attack.name, crops, rows, references, MANIFEST.decision, 0, subject.clean.alarm)
        chunk = Chunk(rows, attack.craft(subject.model, task))
        runs = subject.model.runtime, subject.profile, subject.clean
        replayed = replay_chunk(chunk, *runs, crops, MANIFEST.decision, 0)
        outcomes.append((Scenario(attack, "perfect", subject.profile, subject.profile), replayed))
    checks = check_profile(subject, crops, MANIFEST.decision, 0)
    return {c.name: c for c in [*checks, *check_attacks(subject, outcomes, crops, MANIFEST.decision, 0)]}


def test_sound_attacks_on_a_sound_model_pass(white_box: Any, crops: CropSet) -> None:
    checks = looked_at(subject_of(*white_box("mean3"), crops), crops, DeepFool(), Pgd())
    assert set(checks) == {"parity", "gradient", "stable", "unbounded", "budget", "converged", "restarts", "progress"}
    assert all(check.passed for check in checks.values()), checks


def test_gradients_of_another_model_are_noticed(white_box: Any, crops: CropSet) -> None:
    profile, model = white_box("none")
    rng = np.random.default_rng(0)
    projection = rng.normal(size=(160 * 160 * 3, 8)).astype(np.float32)

    def embed(images: np.ndarray) -> np.ndarray:
        features = np.asarray(images.reshape(len(images), -1) @ projection)
        return np.pad(features, ((0, 0), (0, MANIFEST.output.size - 8))) / np.linalg.norm(features, axis=1)[:, None]

    def distances_and_gradients(images: np.ndarray, references: np.ndarray) -> Any:
        return np.ones(len(images)), rng.normal(size=images.shape).astype(np.float32)

    stranger = SimpleNamespace(embed=embed, distances_and_gradients=distances_and_gradients)
    checks = looked_at(subject_of(profile, replace(model, original=stranger), crops), crops)
    assert not checks["parity"].passed
    assert not checks["gradient"].passed


def test_masked_gradients_are_noticed(white_box: Any, crops: CropSet) -> None:
    profile, model = white_box("none")
    original = model.original

    def distances_and_gradients(images: np.ndarray, references: np.ndarray) -> Any:
        d, gradients = original.distances_and_gradients(images, references)
        return d, np.zeros_like(gradients)

    masked = SimpleNamespace(embed=original.embed, distances_and_gradients=distances_and_gradients)
    checks = looked_at(subject_of(profile, replace(model, original=masked), crops), crops, DeepFool())
    assert checks["parity"].passed
    assert not checks["gradient"].passed
    assert "gradients are zero" in checks["gradient"].detail
    assert not checks["unbounded"].passed


def test_an_attack_that_ended_too_early_is_noticed(white_box: Any, crops: CropSet) -> None:
    subject = subject_of(*white_box("none"), crops)
    hasty = Pgd(epsilon=8 / 255, steps=3, step=0.25 / 255)
    assert not looked_at(subject, crops, hasty)["converged"].passed


@pytest.mark.parametrize(("gradient", "reason"), [(np.nan, "has NaN or infinite values"), (None, "has no gradient")])
def test_a_gradient_that_is_none_or_not_a_number_takes_nothing_else_along(
    crops: CropSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient: float | None, reason: str
) -> None:
    def nonsense(self: Any, images: np.ndarray, references: np.ndarray) -> Any:
        return np.ones(len(images)), None if gradient is None else np.full_like(images, gradient)

    monkeypatch.setattr(TensorFlowVerifier, "distances_and_gradients", nonsense)
    attacks = (Gaussian(levels=4, draws=1), DeepFool())
    request = Request(MANIFEST, crops, "test", attacks, (NONE,), ("perfect",), 0, Execution("cpu", threads=1))
    assessment = run_audit(request, tmp_path / "run")
    assert {s.attack for s in assessment.scenarios} == {"gaussian"}
    (lost,) = assessment.unavailable
    assert lost.attack == "deepfool on none"
    assert reason in lost.reason
    (failed,) = (check for check in assessment.checks if not check.passed)
    assert (failed.name, failed.about) == ("gradient", "none")
    assert reason in failed.detail
    assert not assessment.complete
    assert not assessment.valid
    jsonschema.validate(json.loads(to_json(assessment)), report_schema())


@dataclass(frozen=True)
class Scripted:
    """A gradient attack that solves as many of the pairs as its script says for its bound and steps, by one change."""

    script: Callable[[Scripted], tuple[int, int]]
    epsilon: float | None = None
    steps: int = 0
    name: str = "scripted"
    needs: Needs = "gradient"
    seen: list[tuple[Scripted, Task, Any]] = field(default_factory=list, compare=False)

    @property
    def traits(self) -> Traits:
        return Traits(norm=None if self.epsilon is None else "linf", epsilon=self.epsilon, steps=self.steps)

    def craft(self, model: Any, task: Task) -> Crafted:
        self.seen.append((self, task, model))
        count, levels = self.script(self)
        success = np.arange(len(task)) < count
        probes8 = to_8bit(task.probes) + (levels * success).astype(np.uint8)[:, None, None, None]
        return Crafted(to_unit(probes8), success, probes8, success, np.ones(len(task), np.int64))


def gray(levels: list[int], genuine: bool = True) -> CropSet:
    """Pairs of a gray probe, and a reference that is 5 levels darker; 60 levels if impostors."""
    n = len(levels)
    shades = [*levels, *(level - (5 if genuine else 60) for level in levels)]
    images = np.stack([np.full((4, 4, 3), shade, np.uint8) for shade in shades])
    pairs = tuple(Pair(f"p{i}", f"r{i}", genuine) for i in range(n))
    return CropSet(images, tuple(map(str, range(2 * n))), pairs, np.stack([np.arange(n), n + np.arange(n)], axis=1), ())


def clean_of(crops: CropSet, eligible: np.ndarray | None = None, alarm: float = np.inf) -> CleanRun:
    """The embedding of the crop in place i is i; every pair is eligible, or some are."""
    n, m = len(crops.pairs), len(crops.images)
    eligible = np.ones(n, np.bool_) if eligible is None else eligible
    places = np.arange(m, dtype=np.float32)[:, None]
    return CleanRun(places, np.zeros(n), eligible, np.zeros(m), alarm, eligible)


def subject_with(clean: CleanRun) -> Seen:
    return Seen(NONE, SimpleNamespace(), clean)  # type: ignore[arg-type]


def rerun(attack: Scripted, crafted: int, levels: int, alarm: float = np.inf) -> dict[str, Check]:
    """The checks of an attack that solved the first `crafted` of eight pairs, by a change of so many levels."""
    crops = gray([100] * 8)
    scenario, replayed = outcome([i < crafted for i in range(8)], attack)
    replayed = replace(replayed, l2=np.full(8, levels / 255 * np.sqrt(48)))
    subject = subject_with(clean_of(crops, alarm=alarm))
    return {c.name: c for c in check_attacks(subject, [(scenario, replayed)], crops, MANIFEST.decision, 0)}


def test_behind_a_detector_the_attack_without_a_bound_is_one_whose_steps_are_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PGD without a bound set off the detector with each step, so that the check failed where nothing was wrong."""
    monkeypatch.setattr("toolkit.audit.replaying.reruns._UNBOUNDED", Scripted(lambda a: (7, 10)))
    monkeypatch.setattr("toolkit.audit.replaying.reruns._UNNOTICED", Scripted(lambda a: (8, 10)))
    missing = Scripted(lambda a: (0, 0))
    assert rerun(missing, 0, 10, alarm=0.5)["unbounded"].passed
    assert not rerun(missing, 0, 10)["unbounded"].passed


@pytest.mark.parametrize(("levels", "passes"), [(100, True), (91, True), (89, False)])
def test_norms_that_more_steps_shrink_were_not_the_smallest(levels: int, passes: bool) -> None:
    attack = Scripted(lambda a: (8, levels), steps=10)
    assert rerun(attack, 8, 100)["converged"] == Check(
        "converged", "scripted on none", passes,
        f"with twice the steps, it succeeds on 8 instead of 8 of 8 pairs, at {levels / 100:.2f} times the norm",
    )  # fmt: skip
    ((longer, *_),) = attack.seen
    assert longer.steps == 20


@pytest.mark.parametrize(("before", "after", "passes"), [(4, 5, True), (4, 6, False), (4, 0, True), (0, 0, True)])
def test_more_steps_must_not_solve_many_more_pairs(
    before: int, after: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.audit.replaying.reruns._UNBOUNDED", Scripted(lambda a: (8, 10)))
    check = rerun(Scripted(lambda a: (after, 10), steps=10), before, 10)["converged"]
    assert check.passed is passes
    assert check.detail.startswith(
        f"with twice the steps, it succeeds on {after} instead of {before} of 8 pairs, at 1.00"
    )


def test_norms_in_a_ball_may_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack in a ball does not look for the smallest change."""
    monkeypatch.setattr("toolkit.audit.replaying.reruns._UNBOUNDED", Scripted(lambda a: (8, 10)))
    assert rerun(Scripted(lambda a: (8, 1), epsilon=0.1, steps=10), 8, 10)["converged"].passed


@pytest.mark.parametrize(
    ("half", "double", "passes"),
    [(2, 8, True), (5, 3, True), (6, 8, False), (2, 2, False), (8, 8, False), (2, 0, False)],
)
def test_success_must_grow_with_the_bound(
    half: int, double: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pair may be chance."""
    monkeypatch.setattr("toolkit.audit.replaying.reruns._UNBOUNDED", Scripted(lambda a: (8, 10)))
    attack = Scripted(lambda a: (half if a.epsilon < 0.1 else double, 10), epsilon=0.1)
    assert rerun(attack, 4, 10)["budget"] == Check(
        "budget", "scripted on none", passes,
        f"with half, once and twice the bound, it succeeds on {half}, 4 and {double} of 8 pairs",
    )  # fmt: skip
    assert [made.epsilon for made, *_ in attack.seen] == [0.05, 0.2]


@pytest.mark.parametrize(("solved", "passes"), [(8, True), (7, False), (4, False)])
def test_without_a_bound_every_pair_must_fall(solved: int, passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.audit.replaying.reruns._UNBOUNDED", Scripted(lambda a: (solved, 10)))
    assert rerun(Scripted(lambda a: (0, 0)), 0, 10)["unbounded"] == Check(
        "unbounded", "none", passes,
        f"on 8 pairs no gradient attack succeeds; without a bound, one succeeds on {solved} of 8 of them",
    )  # fmt: skip
    assert rerun(Scripted(lambda a: (0, 0)), 8, 10)["unbounded"] == Check(
        "unbounded", "none", True, "gradient attacks succeed on every eligible pair"
    )


def test_what_no_attack_solved_is_attacked_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 pairs one attack solves 0 to 4, another 5 to 9, and 25 to 29 are not eligible: 15 are left, 8 are tried."""
    free = Scripted(lambda a: (8, 10), name="free")
    monkeypatch.setattr("toolkit.audit.replaying.reruns._UNNOTICED", free)
    crops = gray([100 + i for i in range(30)])
    clean = clean_of(crops, np.arange(30) < 25, alarm=0.25)
    outcomes = [outcome([at <= i < at + 5 for i in range(30)], Scripted(lambda a: (0, 0))) for at in (0, 5)]

    def tried(seed: int) -> list[int]:
        subject = subject_with(clean)
        (check,) = check_attacks(subject, outcomes, crops, MANIFEST.decision, seed)
        assert check.detail.startswith(
            "on 15 pairs no gradient attack succeeds; without a bound, one succeeds on 8 of 8"
        )
        _, task, model = free.seen.pop()
        assert model._model is subject.model
        rows = (to_8bit(task.probes)[:, 0, 0, 0].astype(int) - 100).tolist()
        # Each with its own reference and random numbers, and with the detector.
        assert task.references[:, 0].tolist() == [30 + row for row in rows]
        drawn = [generator.random() for generator in task.generators]
        assert drawn == [pair_generator(seed, "free", crops.pairs[row].id).random() for row in rows]
        assert task.alarm == 0.25
        assert task.decision == MANIFEST.decision
        return rows

    rows = tried(0)
    assert rows == sorted(rows)
    assert set(rows) < set(range(10, 25))
    assert tried(0) == rows, "the same pairs whenever the audit is given again"
    assert tried(1) != rows


def test_attacks_run_again_with_their_own_random_numbers() -> None:
    attack = Scripted(lambda a: (8, 10), epsilon=0.1, steps=5)
    rerun(attack, 8, 10)
    assert [(made.epsilon, made.steps) for made, *_ in attack.seen] == [(0.05, 5), (0.2, 5), (0.1, 10)]
    first = pair_generator(0, "scripted", gray([100] * 8).pairs[0].id).random()
    assert [task.generators[0].random() for _, task, _ in attack.seen] == [first] * 3


def test_pairs_that_are_run_again_are_compared_with_themselves() -> None:
    """Of 20 pairs, 8 are run again; their own successes and norms are those before."""
    crops = gray([100 + i for i in range(20)])
    attack = Scripted(lambda a: (8, 10), steps=10)
    unsolved = Scripted(lambda a: (0, 0), name="other")
    run = check_attacks(subject_with(clean_of(crops)), [outcome([True] * 20, attack)], crops, MANIFEST.decision, 0)
    rows = to_8bit(attack.seen[0][1].probes)[:, 0, 0, 0].astype(int) - 100
    assert [check.name for check in run] == ["unbounded", "converged"]
    solved = np.isin(np.arange(20), rows[:3])
    scenario, replayed = outcome(solved.tolist(), attack)
    # The norms of these three become 1/2, 1 and 3 times as large; others play no part.
    after = 10 / 255 * np.sqrt(48)
    norms = np.full(20, 99.0)
    norms[rows[:3]] = after / np.array([0.5, 1, 3])
    everything = outcome([True] * 20, unsolved)
    found = check_attacks(
        subject_with(clean_of(crops)),
        [(scenario, replace(replayed, l2=norms)), everything],
        crops,
        MANIFEST.decision,
        0,
    )
    assert found[-1].detail == "with twice the steps, it succeeds on 8 instead of 3 of 8 pairs, at 1.00 times the norm"


@pytest.mark.parametrize(
    "left_out",
    [
        outcome([True] * 8, Scripted(lambda a: (8, 10), needs="runtime")),
        outcome([True] * 8, Scripted(lambda a: (8, 10)), profile=Profile("other", "", (), "")),
        outcome([True] * 8, Universal()),
        (
            Scenario(Scripted(lambda a: (8, 10)), "partial", NONE, Profile("other", "", (), "")),
            outcome([True] * 8, Gaussian())[1],
        ),
    ],
    ids=["no gradients", "another profile", "trained", "other knowledge"],
)
def test_only_gradient_attacks_that_know_the_profile_are_run_again(left_out: Any) -> None:
    crops = gray([100] * 8)
    assert check_attacks(subject_with(clean_of(crops)), [left_out], crops, MANIFEST.decision, 0) == []


BRIGHTNESS = Decision("euclidean", 0.1, 1.0)


class Turned(Linear):
    """Sees the brightness. Its gradients for probes brighter than 200 point the wrong way, or nowhere."""

    factor = -1.0

    def distances_and_gradients(self, crops: np.ndarray, references: np.ndarray) -> Any:
        d, gradients = super().distances_and_gradients(crops, references)
        return d, np.where(crops.mean(axis=(1, 2, 3), keepdims=True) > 200 / 255, self.factor * gradients, gradients)


class Still(Turned):
    factor = 0.0


def seen_by(original: type[Turned], crops: CropSet) -> Seen:
    weights = np.full((48, 1), 1 / 48)
    runtime = Linear(weights, BRIGHTNESS)
    clean = clean_of(crops)
    clean = replace(clean, embeddings=runtime.embed(to_unit(crops.images)))
    return Seen(NONE, WhiteBox(runtime, original(weights, BRIGHTNESS)), clean)  # type: ignore[arg-type]


@pytest.mark.parametrize("genuine", [True, False])
@pytest.mark.parametrize(("original", "zeros"), [(Turned, ""), (Still, "; {} gradients are zero")])
def test_four_of_five_gradients_must_lead_to_the_goal(genuine: bool, original: type[Turned], zeros: str) -> None:
    for wrong, passes in ((0, True), (2, True), (3, False)):
        crops = gray([210 + i for i in range(wrong)] + [100 + i for i in range(10 - wrong)], genuine)
        _, check, _ = check_profile(seen_by(original, crops), crops, BRIGHTNESS, 0)
        assert check == Check(
            "gradient", "none", passes,
            f"for {10 - wrong} of 10 pairs, a step along the gradient comes nearer to the goal than a random step"
            + (zeros.format(wrong) if wrong else ""),
        )  # fmt: skip


def test_gradients_are_looked_at_on_sixteen_pairs() -> None:
    crops = gray([100 + i for i in range(20)])
    _, check, _ = check_profile(seen_by(Turned, crops), crops, BRIGHTNESS, 0)
    assert check.detail.startswith("for 16 of 16 pairs")
    subject = seen_by(Turned, crops)
    given: list[list[int]] = []

    def looked(crops: np.ndarray, references: np.ndarray) -> Any:
        given.append(to_8bit(crops)[:, 0, 0, 0].tolist())
        return subject.model.distances_and_gradients(crops, references)

    original = SimpleNamespace(embed=subject.model.original.embed, distances_and_gradients=looked)
    watched = replace(subject, model=WhiteBox(subject.model.runtime, original))  # type: ignore[arg-type]
    for seed in (0, 0, 1):
        check_profile(watched, crops, BRIGHTNESS, seed)
    # Each time once along the gradient, and four times for the noise around the probe.
    assert len(given) == 15
    for check in (0, 1):
        assert given[check] == given[5 + check] != given[10 + check], "the same pairs whenever the audit is given again"
    nothing = replace(subject, clean=replace(subject.clean, eligible=np.zeros(20, np.bool_)))
    assert [check.name for check in check_profile(nothing, crops, BRIGHTNESS, 0)] == ["parity"]


def test_a_gradient_must_gain_more_than_a_random_step() -> None:
    """On a model that jumps at any change, every direction is as good."""
    crops = gray([100 + i for i in range(10)])
    subject = seen_by(Turned, crops)

    def jumping(images: np.ndarray) -> np.ndarray:
        levels = 255 * images.reshape(len(images), -1)
        changed = np.abs(levels - np.rint(levels)).max(axis=1) > 1e-3
        return np.where(changed, 2.0, images.mean(axis=(1, 2, 3)))[:, None].astype(np.float32)

    jumps = replace(
        subject,
        model=WhiteBox(SimpleNamespace(embed=jumping, compare=subject.model.runtime.compare), subject.model.original),
    )  # type: ignore[arg-type]
    check = check_profile(jumps, crops, BRIGHTNESS, 0)[1]
    assert check.detail.startswith("for 0 of 10 pairs")
    assert not check.passed


class Squeezed(Turned):
    """Its detector flags brightness, so that it notices the way past the decision. `sign` turns its gradient."""

    sign = 1.0

    def embed_and_score(self, crops: np.ndarray) -> Any:
        return self.embed(crops), (100 * (crops.mean(axis=(1, 2, 3)) - 0.4) ** 2).astype(np.float32)

    def scores_and_gradients(self, crops: np.ndarray) -> Any:
        _, scores = self.embed_and_score(crops)
        slope = 200 * (crops.mean(axis=(1, 2, 3)) - 0.4) / crops[0].size
        return scores.astype(np.float64), np.broadcast_to(
            (self.sign * slope).astype(np.float32)[:, None, None, None], crops.shape
        )


@pytest.mark.parametrize(("sign", "higher", "passes"), [(1.0, 10, True), (-1.0, 0, False)])
def test_decision_and_detector_are_followed_apart(sign: float, higher: int, passes: bool) -> None:
    """A step past the decision raises the detector's score at once, which says nothing against the gradients."""
    crops = gray([110 + i for i in range(10)])
    subject = seen_by(Squeezed, crops)
    both = Squeezed(subject.model.original.weights, BRIGHTNESS)
    both.sign = sign
    subject = replace(
        subject,
        model=WhiteBox(both, both),
        clean=replace(subject.clean, alarm=0.05),  # type: ignore[arg-type]
    )
    check = check_profile(subject, crops, BRIGHTNESS, 0)[1]
    assert check.name == "gradient"
    assert check.passed is passes
    assert check.detail.startswith("for 10 of 10 pairs, a step along the gradient comes nearer to the goal")
    assert check.detail.endswith(
        f"; for {higher}, one along the detector's gradient raises its score more than a random step"
    )


@pytest.mark.parametrize(
    ("pairs", "changed", "passes"), [(64, 0, True), (64, 1, True), (64, 2, False), (50, 1, True), (49, 1, False)]
)
def test_one_decision_of_fifty_may_differ_between_the_models(pairs: int, changed: int, passes: bool) -> None:
    """Pairs after the 64th are not compared."""
    crops = gray([200] * changed + [100] * (pairs - changed) + [200] * (6 if pairs == 64 else 0))
    subject = seen_by(Turned, crops)

    def elsewhere(images: np.ndarray) -> np.ndarray:
        embeddings = subject.model.runtime.embed(images)
        return embeddings + np.float32(2) * (np.abs(embeddings - 200 / 255) < 1e-6)

    model = WhiteBox(subject.model.runtime, SimpleNamespace(embed=elsewhere))  # type: ignore[arg-type]
    clean = replace(subject.clean, eligible=np.zeros(len(crops.pairs), np.bool_))
    (check,) = check_profile(replace(subject, model=model, clean=clean), crops, BRIGHTNESS, 0)
    assert check == Check(
        "parity", "none", passes,
        f"distances of the gradient model and of the deployed model differ on {changed} of {pairs} clean probes by "
        f"more than rounding (largest difference {2.0 if changed else 0.0:.1e}), with {changed} other decisions",
    )  # fmt: skip


def task_on(level: float, dodging: bool = True) -> Task:
    """One gray pair, and a reference that is black."""
    probes = np.full((1, 4, 4, 3), level / 255, np.float32)
    return Task(probes, np.zeros((1, 1), np.float32), np.array([dodging]), BRIGHTNESS, (np.random.default_rng(0),))


def gain(model: Any, task: Task, directions: np.ndarray) -> np.ndarray:
    """How much nearer to the goal of a task the best step comes."""
    rows = np.arange(len(task))
    return _gain(lambda images: margins(model, task, rows, images), task.probes, directions)


def test_a_gain_is_that_of_the_best_step_of_three() -> None:
    """Steps change each value by 1/4, 1 or 4 levels; only their direction counts."""
    linear: Any = Linear(np.full((48, 1), 1 / 48), BRIGHTNESS)
    up = np.ones((1, 4, 4, 3), np.float32)
    for scale in (1e-3, 1, 1e3):
        np.testing.assert_allclose(255 * gain(linear, task_on(100), np.float32(scale) * up), [4], rtol=1e-3)
        np.testing.assert_allclose(255 * gain(linear, task_on(100, dodging=False), -scale * up), 4, rtol=1e-3)
    # The shortest of steps in the wrong direction loses least; a step out of the range is none.
    np.testing.assert_allclose(255 * gain(linear, task_on(100), -up), [-0.25], rtol=1e-3)
    np.testing.assert_allclose(gain(linear, task_on(255), up), 0, atol=1e-6)
    np.testing.assert_allclose(gain(linear, task_on(0, dodging=False), -up), 0, atol=1e-6)
    np.testing.assert_array_equal(gain(linear, task_on(100), 0 * up), [0])

    def peak(images: np.ndarray) -> np.ndarray:
        return (1 - np.abs(images.mean(axis=(1, 2, 3)) - 101 / 255))[:, None].astype(np.float32)

    peaked: Any = SimpleNamespace(embed=peak)
    np.testing.assert_allclose(255 * gain(peaked, task_on(100), up), 1, rtol=1e-3)


def test_a_filter_that_is_half_as_strong_in_tensorflow_is_noticed(
    white_box: Any, crops: CropSet, facenet_network: Callable[[Any], Any]
) -> None:
    """No decision on clean probes differs, but every distance does."""
    profile, model = white_box("mean3")
    full = profile.tensorflow

    def half(images: Any, entropy: Any) -> Any:
        return (images + full(images, entropy)) / 2

    weaker = replace(model, original=TensorFlowVerifier(MANIFEST, half, facenet_network))
    subject = subject_of(profile, model, crops)
    # Without eligible pairs, gradients are not looked at: their functions take long to compile.
    subject = replace(subject, clean=replace(subject.clean, eligible=np.zeros(12, np.bool_)))
    (sound, *_), (found, *_) = (
        check_profile(replace(subject, model=one), crops, MANIFEST.decision, 0) for one in (model, weaker)
    )
    assert sound.passed
    assert sound.name == found.name == "parity"
    assert not found.passed
    assert "differ on 12 of 12 clean probes by more than rounding" in found.detail
    assert "with 0 other decisions" in found.detail


def test_a_difference_on_crafted_probes_alone_is_noticed() -> None:
    """The model that gives the gradients sees what lies between two levels; the deployed one does not."""
    crops = gray([100 + i for i in range(10)])
    subject = seen_by(Turned, crops)

    def between(images: np.ndarray) -> np.ndarray:
        beside = np.abs(255 * images - np.rint(255 * images)).mean(axis=(1, 2, 3), keepdims=False)
        return subject.model.runtime.embed(images) + np.float32(1e-3) * (beside > 0.01).astype(np.float32)[:, None]

    model = WhiteBox(subject.model.runtime, SimpleNamespace(embed=between))  # type: ignore[arg-type]
    nothing = replace(subject.clean, eligible=np.zeros(10, np.bool_))
    crafted = np.full((2, 4, 4, 3), 120.4 / 255, np.float32)
    for samples, passes in (((), True), ((Sample(np.array([3, 7]), crafted),), False)):
        (check,) = check_profile(Seen(NONE, model, nothing, samples), crops, BRIGHTNESS, 0)
        assert check.passed is passes
    assert "on 0 of 10 clean probes" in check.detail
    assert "on 2 of 2 crafted probes" in check.detail
    # A model of bytes would round them, so that it is compared on what it would see.
    (check,) = check_profile(Seen(NONE, model, nothing, samples, of_bytes=True), crops, BRIGHTNESS, 0)
    assert check.passed
    assert "on 0 of 2 crafted probes" in check.detail


def test_a_difference_on_clean_probes_alone_is_noticed() -> None:
    crops = gray([100 + i for i in range(10)])
    subject = seen_by(Turned, crops)

    def on_levels(images: np.ndarray) -> np.ndarray:
        beside = np.abs(255 * images - np.rint(255 * images)).mean(axis=(1, 2, 3))
        return subject.model.runtime.embed(images) + np.float32(1e-3) * (beside < 0.01).astype(np.float32)[:, None]

    model = WhiteBox(subject.model.runtime, SimpleNamespace(embed=on_levels))  # type: ignore[arg-type]
    nothing = replace(subject.clean, eligible=np.zeros(10, np.bool_))
    samples = (Sample(np.array([3, 7]), np.full((2, 4, 4, 3), 120.4 / 255, np.float32)),)
    (check,) = check_profile(Seen(NONE, model, nothing, samples), crops, BRIGHTNESS, 0)
    assert not check.passed
    assert "on 10 of 10 clean probes" in check.detail
    assert "on 0 of 2 crafted probes" in check.detail


def test_each_model_compares_as_it_does_itself() -> None:
    crops = gray([100] * 10)
    subject = seen_by(Turned, crops)
    runtime = subject.model.runtime
    farther = SimpleNamespace(embed=runtime.embed, compare=lambda e, r: runtime.compare(e, r) + 0.05)  # type: ignore[attr-defined]
    nothing = replace(subject.clean, eligible=np.zeros(10, np.bool_))
    (check,) = check_profile(Seen(NONE, WhiteBox(farther, runtime), nothing), crops, BRIGHTNESS, 0)  # type: ignore[arg-type]
    assert not check.passed


def test_rounding_of_one_probe_in_ten_may_cross_a_step() -> None:
    crops = gray([200] * 2 + [100] * 8)
    for crossed, passes in ((1, True), (2, False)):
        subject = seen_by(Turned, crops)

        def stepped(images: np.ndarray, crossed: int = crossed, subject: Seen = subject) -> np.ndarray:
            embeddings = subject.model.runtime.embed(images)
            embeddings[:crossed] += np.float32(3e-5)
            return embeddings

        model = WhiteBox(subject.model.runtime, SimpleNamespace(embed=stepped))  # type: ignore[arg-type]
        clean = replace(subject.clean, eligible=np.zeros(10, np.bool_))
        (check,) = check_profile(Seen(NONE, model, clean), crops, BRIGHTNESS, 0)
        assert check.passed is passes


def test_attack_scores_are_compared_where_there_is_a_detector() -> None:
    crops = gray([100] * 10)
    subject = seen_by(Turned, crops)
    embed = subject.model.runtime.embed

    def scored(by: float) -> Any:
        return SimpleNamespace(embed=embed, embed_and_score=lambda x: (embed(x), np.full(len(x), by, np.float32)))

    clean = replace(subject.clean, eligible=np.zeros(10, np.bool_), alarm=0.05)
    for by, passes in ((0.01, True), (0.02, False)):
        (check,) = check_profile(Seen(NONE, WhiteBox(scored(0.01), scored(by)), clean), crops, BRIGHTNESS, 0)
        assert check.passed is passes


class Rough(Turned):
    """Its distances jump by `height` with what rounding to 8 bits removes."""

    height = 0.0

    def distances_and_gradients(self, crops: np.ndarray, references: np.ndarray) -> Any:
        d, gradients = super().distances_and_gradients(crops, references)
        return d + self.height * (np.abs(255 * crops - np.rint(255 * crops)).max(axis=(1, 2, 3)) > 1e-2), gradients


@pytest.mark.parametrize(("share", "passes"), [(0.09, True), (0.11, False)])
def test_a_loss_that_noise_below_one_level_moves_is_unstable(
    share: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rough, "height", share * BRIGHTNESS.threshold)
    crops = gray([100 + i for i in range(10)])
    check = check_profile(seen_by(Rough, crops), crops, BRIGHTNESS, 0)[-1]
    assert (check.name, check.about) == ("stable", "none")
    assert check.passed is passes
    assert check.detail.startswith("noise of a quarter of a level moves the margins of 8 clean probes by")


@dataclass(frozen=True)
class Climbing(Scripted):
    """Besides, it asks for gradients, brighter by `rise` levels in each step of each start."""

    rise: float = 1.0
    restarts: int = 1

    def craft(self, model: Any, task: Task) -> Crafted:
        crafted = super().craft(model, task)
        for _ in range(self.restarts):
            for k in range(self.steps + 1):
                level = np.float32(self.rise * min(k, 8) / 255 if self.rise < 0 else self.rise * k / 255)
                model.distances_and_gradients(task.probes + abs(level), task.references)
        return crafted


def started_again(attack: Climbing, crafted: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    monkeypatch.setattr("toolkit.audit.replaying.reruns._UNBOUNDED", Scripted(lambda a: (8, 10)))
    crops = gray([100 + i for i in range(8)])
    subject = seen_by(Turned, crops)
    outcomes = [outcome([i < crafted for i in range(8)], attack)]
    return {c.name: c for c in check_attacks(subject, outcomes, crops, BRIGHTNESS, 0)}


@pytest.mark.parametrize(("found", "passes"), [(0, True), (1, True), (2, False)])
def test_one_start_more_must_solve_few_missed_pairs(found: int, passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = Climbing(lambda a: (found if a.restarts == 2 else 2, 10), epsilon=0.1, steps=8)  # type: ignore[attr-defined]
    check = started_again(attack, 2, monkeypatch)["restarts"]
    assert check == Check(
        "restarts", "scripted on none", passes,
        f"with one start more and other random numbers, it succeeds on {found} of 4 pairs that it missed",
    )  # fmt: skip
    made, task, _ = attack.seen[-1]
    assert made.restarts == 2
    assert (to_8bit(task.probes)[:, 0, 0, 0] >= 102).all(), "only missed pairs"
    other = pair_generator(0, "scripted again", crops_id(task)).random()
    assert task.generators[0].random() == other


def crops_id(task: Task) -> str:
    crops = gray([100 + i for i in range(8)])
    return crops.pairs[int(to_8bit(task.probes)[0, 0, 0, 0]) - 100].id


def test_an_attack_that_misses_nothing_needs_no_other_start(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = Climbing(lambda a: (8, 10), epsilon=0.1, steps=8)
    checks = started_again(attack, 8, monkeypatch)
    assert checks["restarts"].passed
    assert checks["restarts"].detail == "it misses none of the 8 pairs that were looked at"
    assert {made.restarts for made, *_ in attack.seen} == {1}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("rise", "passes"), [(1.0, False), (-1.0, True)])
def test_an_attack_that_still_climbs_when_it_ends_is_noticed(
    rise: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a falling `rise`, it stands still after eight steps."""
    attack = Climbing(lambda a: (0, 0), epsilon=0.1, steps=8, rise=rise)
    check = started_again(attack, 0, monkeypatch)["progress"]
    assert check.passed is passes
    assert f"the margin of {0 if passes else 4} of 4 pairs still rises" in check.detail


@pytest.mark.parametrize(
    ("kind", "operator", "passes"),
    [(np.float32, "Add", False), (np.float16, "Add", True), (np.float16, "Cast", False)],
)
def test_rounding_is_that_of_the_numbers_that_a_network_computes_with(
    tmp_path: Path, kind: Any, operator: str, passes: bool
) -> None:
    """Distances that differ by 1/200 are within the rounding of float16, not of float32."""
    weights = [onnx.numpy_helper.from_array(np.ones(3, kind), "weights")]
    given, more = (["weights"], {"to": onnx.TensorProto.FLOAT}) if operator == "Cast" else (["x", "weights"], {})
    node = onnx.helper.make_node(operator, given, ["y"], **more)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy"]
    content = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:], weights))
    rounding = rounding_of(content.SerializeToString(), tmp_path)
    crops = gray([100] * 10)
    subject = seen_by(Turned, crops)
    beside = SimpleNamespace(embed=lambda images: subject.model.runtime.embed(images) + np.float32(5e-4))
    model = WhiteBox(subject.model.runtime, beside)  # type: ignore[arg-type]
    clean = replace(subject.clean, eligible=np.zeros(10, np.bool_))
    (check,) = check_profile(Seen(NONE, model, clean, rounding=rounding), crops, BRIGHTNESS, 0)
    assert check.passed is passes


def test_the_shipped_verifier_computes_in_float32() -> None:
    assert rounding_of(MANIFEST.model.read_bytes(), MANIFEST.model) == 1e-5


def test_other_draws_of_a_random_profile_are_not_taken_for_better_starts() -> None:
    crops, profile = gray([100] * 8), find_profile("randomized")
    attack = Climbing(lambda a: (8, 10), epsilon=0.1, steps=8)
    subject = replace(seen_by(Turned, crops), profile=profile)
    told = [outcome([True] * 4 + [False] * 4, attack, profile=profile)]
    assert not {"restarts", "progress"} & {c.name for c in check_attacks(subject, told, crops, BRIGHTNESS, 0)}
    assert {made.restarts for made, *_ in attack.seen} == {1}  # type: ignore[attr-defined]
