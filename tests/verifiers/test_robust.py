"""The shipped verifier that was trained on attacks: its two forms agree, and it withstands what fells facenet-mini."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from toolkit.attacks.apgd import Apgd
from toolkit.audit.crafting.attack import attack_verifier
from toolkit.audit.suites import balls
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import to_unit
from toolkit.verifiers.differentiable import differentiable
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import RuntimeVerifier
from toolkit.verifiers.tensorflow import TensorFlowVerifier

pytestmark = pytest.mark.shared
MANIFEST = find_manifest("facenet-robust")
PAIRS, STEPS, RMS = 12, 10, 2.15
GOALS: tuple[tuple[Literal["dodging", "impersonation"], bool], ...] = (("dodging", True), ("impersonation", False))


@pytest.fixture(scope="module")
def network() -> Callable[[Any], Any]:
    """While this is held, attacks use it too."""
    return differentiable(MANIFEST)


@pytest.fixture(scope="module")
def crops(shared: Path) -> CropSet:
    assert MANIFEST.alignment is not None
    pairs = load_pairs(shared / "lfw", limit=PAIRS, folds=[7, 8])
    return crop_pairs(pairs, MANIFEST.input.width, MANIFEST.input.height, MANIFEST.alignment.template)


def test_the_onnx_file_and_the_weights_are_one_network(crops: CropSet, network: Callable[[Any], Any]) -> None:
    images = to_unit(np.asarray(crops.images[:6]))
    original = TensorFlowVerifier(MANIFEST, network=network).embed(images)
    np.testing.assert_allclose(RuntimeVerifier(MANIFEST).embed(images), original, atol=2e-5)


@pytest.mark.usefixtures("network")
def test_it_withstands_an_attack_that_gets_every_pair_of_a_verifier_that_was_not_trained_on_attacks(
    crops: CropSet,
) -> None:
    genuine, fell = np.array([pair.genuine for pair in crops.pairs]), []
    epsilon = balls(RMS, MANIFEST.input.height * MANIFEST.input.width * 3).l2
    for goal, kind in GOALS:
        probes, references = (np.asarray(crops.images[side]) for side in crops.index[genuine == kind].T)
        attack = Apgd("apgd-l2", norm="l2", epsilon=epsilon, steps=STEPS)
        found = attack_verifier("facenet-robust", probes, references, goal, attack)
        fell.append(found.success[found.eligible])
    assert len(np.concatenate(fell)) >= 8, "most pairs are eligible"
    assert np.mean(np.concatenate(fell)) <= 0.8
