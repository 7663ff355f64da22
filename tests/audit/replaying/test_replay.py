"""Replays: norms and successes are of the 8-bit probe that a deployed verifier receives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.models import write_linear
from toolkit.attacks.base import Crafted
from toolkit.audit.clean.bench import Bench, gradient_draws
from toolkit.audit.clean.run import run_clean
from toolkit.audit.crafting.craft import Chunk
from toolkit.audit.replaying.replay import PRESENTATIONS, replay_chunk
from toolkit.defenses.noise import Noise
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair
from toolkit.pixels import to_unit
from toolkit.profiles.profile import Profile, find_profile
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import Execution

SIDE = 8
VALUES = SIDE * SIDE * 3


def brightness(folder: Path) -> Manifest:
    """A verifier whose embedding is the mean of the pixels; pairs are the same below a distance of 0.1."""
    weights = np.full((VALUES, 1), 1 / VALUES, np.float32)
    return read_manifest(write_linear(folder, weights=weights, side=SIDE, threshold=0.1))


def test_norms_and_success_are_of_the_8bit_probe(tmp_path: Path) -> None:
    manifest = brightness(tmp_path)
    images = np.full((2, SIDE, SIDE, 3), 100, np.uint8)
    crops = CropSet(images, ("p", "r"), (Pair("p", "r", genuine=True),), np.array([[0, 1]]), ())
    none = find_profile("none")
    verifier = Bench(manifest, Execution("cpu", threads=1), 0).deployed(none)
    clean = run_clean(verifier, crops, manifest.decision)
    # The float probe is 60 levels brighter and dodges; the 8-bit one is 10 levels brighter and does not.
    floats, rounded = to_unit(images[:1] + np.uint8(60)), images[:1] + np.uint8(10)
    crafted = Crafted(floats, np.array([True]), rounded, np.array([True]), np.array([1]))
    replay = replay_chunk(Chunk(np.array([0]), crafted), verifier, none, clean, crops, manifest.decision, 0)
    assert (replay.success[0], replay.success_float[0]) == (False, True)
    np.testing.assert_allclose(replay.l2, 10 / 255 * np.sqrt(VALUES), rtol=1e-6)
    np.testing.assert_allclose(replay.linf, 10 / 255, rtol=1e-6)
    np.testing.assert_allclose(replay.rms, 10, rtol=1e-6)
    np.testing.assert_allclose(replay.l2_float, 60 / 255 * np.sqrt(VALUES), rtol=1e-6)


def test_gradients_against_a_random_profile_are_means_over_many_draws(tmp_path: Path) -> None:
    bench = Bench(brightness(tmp_path), Execution("cpu", threads=1), 0)
    noisy = Profile("noisy", "", (Noise(0.25),), "")
    assert bench.gradients(noisy).draws == gradient_draws(noisy) == 8
    assert bench.gradients(find_profile("mean3")).draws == 1, "a deterministic profile needs one"
    # An ensemble is a mean over draws already; together there are no fewer.
    ensemble = find_profile("ensemble")
    assert gradient_draws(ensemble) * ensemble.draws >= 8
    # Distances over eight draws vary less than half as much as those over one would.
    crops = np.random.default_rng(0).random((64, SIDE, SIDE, 3)).astype(np.float32)
    far = np.full((64, 1), 10, np.float32)
    exact = bench.gradients(find_profile("none")).distances(crops, far)
    error = (bench.gradients(noisy).distances(crops, far) - exact).std()
    one = 0.25 / np.sqrt(VALUES)
    assert error < 0.5 * one


def test_a_random_profile_meets_each_probe_ten_times_with_new_draws(tmp_path: Path) -> None:
    manifest = brightness(tmp_path)
    images = np.full((4, SIDE, SIDE, 3), 100, np.uint8)
    pairs = tuple(Pair(f"p{i}", "r", genuine=True) for i in range(3))
    crops = CropSet(images, ("p0", "p1", "p2", "r"), pairs, np.array([[0, 3], [1, 3], [2, 3]]), ())
    noisy = Profile("noisy", "", (Noise(0.25),), "")
    verifier = Bench(manifest, Execution("cpu", threads=1), 0).deployed(noisy)
    clean = run_clean(verifier, crops, manifest.decision)
    # The first probe is at the threshold, so that the noise decides; the second is far beyond it; the third failed.
    probes = images[:3] + np.array([25, 100, 0], np.uint8)[:, None, None, None]
    made = np.array([True, True, False])
    crafted = Crafted(to_unit(probes), made, probes, made, np.ones(3, np.int64))
    replay = replay_chunk(Chunk(np.arange(3), crafted), verifier, noisy, clean, crops, manifest.decision, 0)
    assert replay.passed.shape == (3, PRESENTATIONS)
    reference = clean.embeddings[3]
    for draw in range(PRESENTATIONS):
        seen = verifier.embed_and_score(to_unit(probes), draw)[0]
        np.testing.assert_array_equal(replay.passed[:2, draw], np.abs(seen - reference)[:2, 0] >= 0.1)
    assert 0 < replay.hits[0] < PRESENTATIONS
    assert replay.hits.tolist()[1:] == [PRESENTATIONS, 0]
    assert replay.first_hit.tolist() == [1 + int(np.argmax(replay.passed[0])), 1, 0]
    np.testing.assert_array_equal(replay.success, replay.first_hit == 1)
