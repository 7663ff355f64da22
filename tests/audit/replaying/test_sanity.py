"""Sanity checks: each must notice the fault that it is there for, and let sound results pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jsonschema
import numpy as np
import pytest

from toolkit.attacks.base import Crafted, Needs, Task, Traits
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.glasses import Glasses
from toolkit.attacks.pgd import Pgd
from toolkit.attacks.universal import Universal
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.plan import Knowledge, Scenario
from toolkit.audit.replaying.replay import Replay
from toolkit.audit.replaying.sanity import Check, Subject, check_attacks, check_outcomes, check_profile
from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.documents import to_json
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import Pair, embedded_pairs, load_pairs
from toolkit.pixels import to_8bit, to_unit
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import Profile, find_profile
from toolkit.report.schemas import report_schema
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.white_box import WhiteBox

NONE = Profile("none", "", (), "")
MANIFEST = find_manifest("facenet-mini")


def outcome(success: list[bool], attack: Any, knowledge: Knowledge = "perfect", linf: float = 0.1):  # type: ignore[no-untyped-def]
    n = len(success)
    replayed = Replay(
        crafted=np.array(success), success=np.array(success), at_goal=np.array(success), scores=np.zeros(n),
        success_float=np.array(success), l2=np.ones(n),
        linf=np.full(n, linf), rms=np.ones(n), l2_float=np.ones(n), l2_defended=np.ones(n),
        evaluations=np.ones(n, np.int64),
    )  # fmt: skip
    return Scenario(attack, knowledge, NONE, NONE), replayed


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


@pytest.fixture(scope="module")
def crops() -> CropSet:
    template = MANIFEST.alignment.template if MANIFEST.alignment else None
    return crop_pairs(load_pairs(embedded_pairs(), limit=12, seed=0), 160, 160, template)


@pytest.fixture(scope="module")
def white_box() -> Callable[[str], Subject]:
    def make(name: str) -> Any:
        profile = find_profile(name)
        hardened = harden(read_model(MANIFEST), MANIFEST, profile)
        runtime = RuntimeVerifier(MANIFEST, hardened, Execution("cpu", threads=1))
        return profile, WhiteBox(runtime, TensorFlowVerifier(MANIFEST, profile.tensorflow))

    return make


def subject_of(profile: Profile, model: Any, crops: CropSet) -> Subject:
    return Subject(profile, model, run_clean(model.runtime, crops, MANIFEST.decision))


def looked_at(subject: Subject, crops: CropSet, *attacks: Any) -> dict[str, Check]:
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
    assert set(checks) == {"parity", "gradient", "unbounded", "budget", "converged"}
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


def test_a_gradient_that_is_not_a_number_takes_nothing_else_along(
    crops: CropSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(self: Any, images: np.ndarray, references: np.ndarray) -> Any:
        return np.ones(len(images)), np.full_like(images, np.nan)

    monkeypatch.setattr(TensorFlowVerifier, "distances_and_gradients", nonsense)
    attacks = (Gaussian(levels=4, draws=1), DeepFool())
    request = Request(MANIFEST, crops, "test", attacks, (NONE,), ("perfect",), 0, Execution("cpu", threads=1))
    assessment = run_audit(request, tmp_path / "run")
    assert {s.attack for s in assessment.scenarios} == {"gaussian"}
    assert [u.attack for u in assessment.unavailable] == ["deepfool on none"]
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
    needs: ClassVar[Needs] = "gradient"

    @property
    def traits(self) -> Traits:
        return Traits(norm=None if self.epsilon is None else "linf", epsilon=self.epsilon, steps=self.steps)

    def craft(self, model: Any, task: Task) -> Crafted:
        count, levels = self.script(self)
        success = np.arange(len(task)) < count
        probes8 = to_8bit(task.probes) + (levels * success).astype(np.uint8)[:, None, None, None]
        return Crafted(to_unit(probes8), success, probes8, success, np.ones(len(task), np.int64))


def rerun(attack: Scripted, crafted: int, levels: int) -> dict[str, Check]:
    """The checks of an attack that solved the first `crafted` of eight pairs, by a change of so many levels."""
    every = np.ones(8, np.bool_)
    pairs = tuple(Pair(f"p{i}", f"r{i}", genuine=True) for i in range(8))
    index = np.stack([np.arange(8), np.arange(8)], axis=1)
    images = np.full((8, 4, 4, 3), 100, np.uint8)
    crops = CropSet(images, tuple(f"p{i}" for i in range(8)), pairs, index, ())
    clean = CleanRun(np.zeros((8, 1), np.float32), np.zeros(8), every, np.zeros(8), np.inf, every)
    scenario, replayed = outcome([i < crafted for i in range(8)], attack)
    replayed = replace(replayed, l2=np.full(8, levels / 255 * np.sqrt(48)))
    subject = Subject(NONE, SimpleNamespace(), clean)  # type: ignore[arg-type]
    return {c.name: c for c in check_attacks(subject, [(scenario, replayed)], crops, MANIFEST.decision, 0)}


@pytest.mark.parametrize(("levels", "passes"), [(10, True), (4, False)])
def test_norms_that_more_steps_shrink_were_not_the_smallest(levels: int, passes: bool) -> None:
    attack = Scripted(lambda a: (8, levels), steps=10)
    assert rerun(attack, 8, 10)["converged"].passed is passes


@pytest.mark.parametrize(("half", "double", "passes"), [(2, 8, True), (8, 8, False), (2, 0, False)])
def test_success_must_grow_with_the_bound(
    half: int, double: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.audit.replaying.sanity._UNBOUNDED", Scripted(lambda a: (8, 10)))
    attack = Scripted(lambda a: (half if a.epsilon < 0.1 else double, 10), epsilon=0.1)
    assert rerun(attack, 4, 10)["budget"].passed is passes


@pytest.mark.parametrize(("solved", "passes"), [(8, True), (7, False), (4, False)])
def test_without_a_bound_every_pair_must_fall(solved: int, passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.audit.replaying.sanity._UNBOUNDED", Scripted(lambda a: (solved, 10)))
    check = rerun(Scripted(lambda a: (0, 0)), 0, 10)["unbounded"]
    assert check.passed is passes, check
