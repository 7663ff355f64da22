"""Every shipped profile as part of the verifier's file does what its NumPy form does before the bare verifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from toolkit.defenses.base import is_random
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.profiles.agreement import compare_forms
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import find_profile, shipped_profiles
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.scores import distances

EXECUTION = Execution("cpu", threads=1)
# A file with few draws votes as one with many does, in less time.
PROFILES = [replace(p, draws=min(p.draws, 5)) for p in map(find_profile, shipped_profiles())]
PAIRS = 2


def crops_for(manifest: Manifest, source: Path, folds: list[int] | None = None) -> CropSet:
    template = manifest.alignment.template if manifest.alignment else None
    pairs = load_pairs(source, limit=PAIRS, seed=0, folds=folds)
    return crop_pairs(pairs, manifest.input.width, manifest.input.height, template)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("verifier", ["facenet-mini", "dlib_resnet.onnx"])
@pytest.mark.shared
def test_one_file_does_what_the_parts_do(shared: Path, verifier: str, profile) -> None:  # type: ignore[no-untyped-def]
    manifest = find_manifest(str(shared / "verifiers" / verifier) if verifier.endswith(".onnx") else verifier)
    crops = crops_for(manifest, shared / "lfw", [7, 8])
    noise = np.random.default_rng(0).random((2, manifest.input.height, manifest.input.width, 3), np.float32)
    images = np.concatenate([to_unit(crops.images), noise])
    agreement = compare_forms(manifest, profile, images, crops.index, EXECUTION)
    assert agreement.flips == 0
    assert agreement.alarms == 0
    # Behind a random zoom, which is 1e-7 apart, a rare value is rounded to the other one of two levels.
    assert agreement.largest_difference < (1e-2 if any(map(is_random, profile.defenses)) else 1e-3)


def test_random_draws_of_the_operating_system_are_distributed_alike() -> None:
    """Two-sample Kolmogorov-Smirnov on the distances of one genuine pair over many draws, at a level of 1e-3."""
    manifest, profile = find_manifest("facenet-mini"), find_profile("randomized")
    crops = crops_for(manifest, embedded_pairs())
    model = read_model(manifest)
    bare = RuntimeVerifier(manifest, model, EXECUTION)
    hardened = RuntimeVerifier(manifest, harden(model, manifest, profile), EXECUTION)
    probe, reference = (to_unit(crops.images[i : i + 1]) for i in crops.index[0])
    against, many = bare.embed(reference), np.repeat(probe, 120, axis=0)
    # Without a seed both draw from the operating system.
    fused, staged = hardened.embed(many), bare.embed(profile.numpy(many))
    d = [distances(manifest.decision.metric, side, np.repeat(against, len(many), 0)) for side in (fused, staged)]
    assert np.unique(d[0]).size > 10
    assert stats.ks_2samp(*d).pvalue > 1e-3
