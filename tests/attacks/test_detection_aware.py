"""Attacks on a verifier with a detector: with knowledge of it they pass it, without it they are seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.attacks.test_attacks import SIDE, linear_task
from tests.models import Linear
from toolkit.attacks.apgd import Apgd
from toolkit.attacks.base import AIM, Attack, Task, ascent, flipped, margins
from toolkit.attacks.carlini_wagner import CarliniWagner
from toolkit.attacks.ddn import Ddn
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.norms import sizes
from toolkit.defenses.median import Median
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.files import bundled
from toolkit.pixels import to_unit
from toolkit.profiles.detector import Detector
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import read_model
from toolkit.verifiers.scores import distances
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.white_box import WhiteBox


class Watched(Linear):
    """A linear verifier whose attack score is how far a second linear map is from where the clean probes have it."""

    seen: np.ndarray
    clean: np.ndarray

    def embed_and_score(self, crops):  # type: ignore[no-untyped-def]
        return self.embed(crops), np.abs(self._moved(crops)).astype(np.float32)

    def scores_and_gradients(self, crops):  # type: ignore[no-untyped-def]
        moved = self._moved(crops)
        slope = np.sign(moved)[:, None] * self.seen[None]
        return np.abs(moved), slope.reshape(crops.shape).astype(np.float32)

    def _moved(self, crops):  # type: ignore[no-untyped-def]
        return crops.reshape(len(crops), -1).astype(np.float64) @ self.seen - self.clean


def watched_task() -> tuple[Watched, Task]:
    """The detector sees the direction that changes the decision, and as much of another one."""
    linear, task = linear_task(1)
    model = Watched(linear.weights, linear.decision)
    aside = np.random.default_rng(7).normal(size=SIDE * SIDE * 3)
    object.__setattr__(model, "seen", linear.weights[:, 0] + aside)
    object.__setattr__(model, "clean", task.probes.reshape(1, -1).astype(np.float64) @ model.seen)
    return model, replace(task, alarm=0.2)


def test_the_margin_is_the_smaller_of_both_and_the_gradient_is_its_slope() -> None:
    model, task = watched_task()
    rows, clean = np.array([0]), task.probes
    # A clean probe is not seen at all: as far below the alarm as a distance of zero from the threshold, in effect.
    np.testing.assert_allclose(margins(model, task, rows, clean), [-0.75], atol=1e-5)
    probe = clean + np.float32(1e-3) * model.seen.reshape(clean.shape).astype(np.float32)
    for image in (clean, probe):
        score, decision = model.embed_and_score(image)[1], margins(model, replace(task, alarm=np.inf), rows, image)
        np.testing.assert_allclose(margins(model, task, rows, image), min(decision[0], 1 - score[0] / 0.2), atol=1e-5)
        margin, gradient = ascent(model, task, rows, image)
        np.testing.assert_allclose(margin, min(decision[0], 1 - score[0] / (AIM * 0.2)), atol=1e-5)
        step = 1e-5 * gradient / np.linalg.norm(gradient)
        risen = ascent(model, task, rows, image + step)[0] - ascent(model, task, rows, image - step)[0]
        np.testing.assert_allclose(risen, 2e-5 * np.linalg.norm(gradient), rtol=0.05)
    assert margin[0] < decision[0], "the second image is the one that is seen"


@pytest.mark.parametrize("attack", [DeepFool(), Fmn(), CarliniWagner(steps=200), Apgd(norm="l2", epsilon=1.0)])
def test_every_gradient_attack_passes_a_detector_that_it_knows(attack: Attack) -> None:
    model, task = watched_task()
    unaware = attack.craft(model, replace(task, alarm=np.inf))
    assert unaware.success.all()
    assert (model.embed_and_score(unaware.probes)[1] > 0.2).all(), "the straight way is seen"
    aware = attack.craft(model, task)
    assert aware.success.all()
    embeddings, scores = model.embed_and_score(aware.probes)
    d = distances("euclidean", embeddings, task.references)
    assert flipped(d, task.dodging, task.decision).all()
    assert (scores <= 0.2).all()


def test_noise_counts_only_what_is_not_seen() -> None:
    model, task = watched_task()
    attack = Gaussian(levels=20, largest=1.0, draws=2)
    crafted = attack.craft(model, task)
    seen = model.embed_and_score(to_unit(crafted.probes8))[1] > task.alarm
    assert not (crafted.success8 & seen).any()


@pytest.fixture(scope="module")
def watched_faces(facenet_network: Callable[[Any], Any]) -> tuple[WhiteBox, Task]:
    """Two genuine and two impostor pairs of a real verifier with a detector, all decided correctly."""
    manifest = read_manifest(bundled("models") / "facenet-mini")
    profile = Profile("watch", "", (), "", detector=Detector((Median(3),), 0.0135, 0.05))
    side = manifest.input.height
    crops = crop_pairs(load_pairs(embedded_pairs(), limit=4, seed=0), side, side, manifest.alignment.template)  # type: ignore[union-attr]
    runtime = deploy(read_model(manifest), manifest, profile)
    squeezers = [squeezer.tensorflow for squeezer in profile.squeezers]
    model = WhiteBox(runtime, TensorFlowVerifier(manifest, profile.tensorflow, facenet_network, squeezers=squeezers))
    probes, references = (to_unit(crops.images[crops.index[:, i]]) for i in (0, 1))
    dodging = np.array([pair.genuine for pair in crops.pairs])
    generators = tuple(np.random.default_rng(i) for i in range(4))
    task = Task(probes, runtime.embed(references), dodging, manifest.decision, generators)
    assert (margins(runtime, task, np.arange(4), probes) < 0).all(), "all four are decided correctly"
    return model, replace(task, alarm=runtime.manifest.alarm)


def test_knowing_the_detector_beats_not_knowing_it_on_a_real_verifier(watched_faces: tuple[WhiteBox, Task]) -> None:
    model, task = watched_faces

    def unnoticed(alarm: float) -> int:
        probes8 = to_unit(DeepFool(steps=40).craft(model, replace(task, alarm=alarm)).probes8)
        return int((margins(model, task, np.arange(4), probes8) > 0).sum())

    assert unnoticed(np.inf) == 0, "an attack that does not know the detector is seen"
    assert unnoticed(task.alarm) >= 3


def test_fmn_and_ddn_find_about_the_same_way_past_a_detector(watched_faces: tuple[WhiteBox, Task]) -> None:
    """Steps of FMN's usual length set off the detector, and then its ball never became small again."""
    model, task = watched_faces
    norms = []
    for attack in (Fmn(steps=40), Ddn(steps=40)):
        crafted = attack.craft(model, task)
        assert crafted.success8.all()
        norms.append(float(np.median(sizes("l2", crafted.probes - task.probes))))
    assert norms[0] < 1.6 * norms[1]
