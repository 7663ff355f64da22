"""Random defenses: the same draws in three forms given the entropy, and unpredictable ones in deployment."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper
from scipy import stats

from tests.models import write_linear
from toolkit.defenses.base import GraphBuilder, RandomDefense
from toolkit.defenses.bit_depth import BitDepth
from toolkit.defenses.choice import Choice
from toolkit.defenses.mean import Mean
from toolkit.defenses.median import Median
from toolkit.defenses.noise import Noise
from toolkit.defenses.pixel_dropout import PixelDropout
from toolkit.defenses.random_zoom import RandomZoom
from toolkit.defenses.randomness import uniforms
from toolkit.errors import InputError
from toolkit.profiles.harden import harden, write_hardened
from toolkit.profiles.profile import Profile, find_profile, read_profile
from toolkit.registry import discover
from toolkit.verifiers.entropy import ENTROPY, seeded_entropy
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier, read_model
from toolkit.verifiers.tensorflow import TensorFlowVerifier

DEFENSES: list[RandomDefense] = [
    Noise(0.05),
    Noise(0.4),
    Noise(0.4, 3),
    RandomZoom(),
    RandomZoom(1.0, 1.3),
    RandomZoom(0.7, 1.5),
    PixelDropout(0.3),
    Choice((Mean(3), Noise(0.1), BitDepth(3))),
]
each = pytest.mark.parametrize("defense", DEFENSES, ids=str)
ENTROPIES = np.random.default_rng(0).integers(0, 2**62, 5)
CROPS = np.random.default_rng(1).random((5, 21, 27, 3), np.float32)


def run_onnx(defense: RandomDefense, crops: np.ndarray, entropy: np.ndarray | None) -> np.ndarray:
    builder = GraphBuilder("test/", 17, "crops")
    value = defense.onnx(builder, "crops", 3)
    shape = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        builder.nodes,
        "defense",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, shape), *builder.inputs],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    # As a host is told to: sessions of one process begin with the same draws unless each is seeded anew.
    onnxruntime.set_seed(secrets.randbits(31))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"crops": crops.transpose(0, 3, 1, 2)}
    return session.run(None, feed if entropy is None else {**feed, ENTROPY: entropy})[0].transpose(0, 2, 3, 1)


def test_every_random_defense_is_covered() -> None:
    known = {name for name, cls in discover("defense").items() if getattr(cls, "random", False)}
    assert known == {defense.name for defense in DEFENSES}


def test_uniform_numbers_are_uniform_and_unrelated() -> None:
    entropy = np.arange(400)  # the worst that a host could give: counted up from zero
    u = uniforms(entropy, 1, 64)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    for other in (uniforms(entropy, 2, 64), uniforms(entropy + 1, 1, 64), np.roll(u, 1, axis=1)):
        assert abs(np.corrcoef(u.ravel(), other.ravel())[0, 1]) < 0.03


@each
def test_given_the_entropy_the_three_forms_draw_the_same(defense: RandomDefense) -> None:
    expected = defense.numpy(CROPS, ENTROPIES, 3)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(run_onnx(defense, CROPS, ENTROPIES), expected, atol=2e-5)
    np.testing.assert_allclose(defense.tensorflow(tf.constant(CROPS), tf.constant(ENTROPIES), 3), expected, atol=2e-5)


@each
def test_a_draw_belongs_to_its_image_and_its_step(defense: RandomDefense) -> None:
    together = defense.numpy(CROPS, ENTROPIES, 3)
    np.testing.assert_allclose(defense.numpy(CROPS[2:3], ENTROPIES[2:3], 3), together[2:3], atol=1e-6)
    same = np.repeat(CROPS[:1], 5, axis=0)
    draws = defense.numpy(same, ENTROPIES, 3)
    assert np.abs(draws - draws[0]).max() > 1e-3
    assert np.abs(defense.numpy(same, ENTROPIES, 4) - draws).max() > 1e-3
    assert draws.min() >= -1e-6
    assert draws.max() <= 1 + 1e-6


@each
def test_gradients_are_of_the_drawn_function(defense: RandomDefense) -> None:
    crops, entropy = tf.constant(0.2 + 0.6 * CROPS), tf.constant(ENTROPIES)
    with tf.GradientTape() as tape:
        tape.watch(crops)
        total = tf.reduce_sum(defense.tensorflow(crops, entropy, 3) ** 2)
    gradient = tape.gradient(total, crops).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.01


@each
def test_without_entropy_seeded_sessions_draw_differently(defense: RandomDefense) -> None:
    crops = np.repeat(CROPS[:1], 8, axis=0)
    first, second = run_onnx(defense, crops, None), run_onnx(defense, crops, None)
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - first[0]).max() > 1e-3, "images of one batch must not share a draw"


def test_noise_has_its_deviation_and_zoom_keeps_everything_visible() -> None:
    gray = np.full((1, 80, 80, 3), 0.5, np.float32)
    noise = Noise(0.1).numpy(gray, ENTROPIES[:1], 0) - gray
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert stats.kstest(noise.ravel() / 0.1, "norm").pvalue > 1e-3
    for entropy in ENTROPIES:
        seen = RandomZoom(0.6, 0.8).numpy(np.ones((1, 60, 60, 3), np.float32), np.array([entropy]), 0)
        width = np.sqrt(seen[0, :, :, 0].sum()) / 60
        assert 0.59 <= width <= 0.81, "a reduced crop is all inside"
        assert RandomZoom(1.2, 1.4).numpy(np.ones((1, 60, 60, 3), np.float32), np.array([entropy]), 0).min() > 0.99


def test_choices_are_equally_likely() -> None:
    entropy = np.random.default_rng(2).integers(0, 2**62, 600)
    crops = np.repeat(CROPS[:1, :8, :8], 600, axis=0)
    options = (Mean(3), Median(3), BitDepth(2))
    result = Choice(options).numpy(crops, entropy, 0)
    counts = [
        int(np.isclose(result, option.numpy(crops[:1]), atol=1e-6).all(axis=(1, 2, 3)).sum()) for option in options
    ]
    assert sum(counts) == 600
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.fixture
def hardened(tmp_path: Path) -> Path:
    weights = np.random.default_rng(3).normal(size=(16 * 16 * 3, 4)).astype(np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=16))
    return write_hardened(manifest, find_profile("randomized"), tmp_path / "hardened.onnx").path


def test_a_hardened_file_is_called_as_before_and_draws_differently_in_every_process(hardened: Path) -> None:
    program = (
        "import os, sys, numpy, onnxruntime\n"
        "onnxruntime.set_seed(int.from_bytes(os.urandom(4), 'little') >> 1)\n"  # as the documentation asks
        f"s = onnxruntime.InferenceSession({str(hardened)!r}, providers=['CPUExecutionProvider'])\n"
        "assert [i.name for i in s.get_inputs()] == ['input']\n"
        "x = numpy.random.default_rng(0).random((4, 16, 16, 3)).astype('float32')\n"
        "print(s.run(None, {'input': x})[0].tolist())\n"
    )
    run = [sys.executable, "-I", "-c", program]
    first, second = (subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first != second


def test_the_host_may_give_entropy_and_then_decides_the_draws(hardened: Path) -> None:
    session = onnxruntime.InferenceSession(str(hardened), providers=["CPUExecutionProvider"])
    crops = np.random.default_rng(4).random((3, 16, 16, 3), np.float32)
    given = session.run(None, {"input": crops, ENTROPY: ENTROPIES[:3]})[0]
    np.testing.assert_array_equal(session.run(None, {"input": crops, ENTROPY: ENTROPIES[:3]})[0], given)
    manifest = read_manifest(hardened)
    seeded = RuntimeVerifier(manifest, seed=7).embed(crops)
    np.testing.assert_array_equal(RuntimeVerifier(manifest, seed=7).embed(crops[1:2]), seeded[1:2])
    assert np.abs(RuntimeVerifier(manifest, seed=8).embed(crops) - seeded).max() > 0
    assert np.abs(RuntimeVerifier(manifest).embed(crops) - RuntimeVerifier(manifest).embed(crops)).max() > 0


def test_the_attackers_side_draws_what_the_deployed_one_does(tmp_path: Path) -> None:
    weights = np.random.default_rng(5).normal(size=(16 * 16 * 3, 4)).astype(np.float32)
    manifest, profile = read_manifest(write_linear(tmp_path, weights=weights, side=16)), find_profile("randomized")
    crops = np.random.default_rng(6).random((3, 16, 16, 3), np.float32)
    deployed = RuntimeVerifier(manifest, harden(read_model(manifest), manifest, profile), seed=1)
    known = TensorFlowVerifier(manifest, profile.tensorflow, draws=1, seed=1)
    np.testing.assert_allclose(known.embed(crops), deployed.embed(crops), rtol=1e-3, atol=1e-2)
    staged = profile.numpy(crops, seeded_entropy(crops, 1)).reshape(3, -1) @ weights
    np.testing.assert_allclose(deployed.embed(crops), staged, rtol=1e-3, atol=1e-2)


def test_expectation_over_transformation_is_a_mean_of_gradients(tmp_path: Path) -> None:
    weights = np.random.default_rng(7).normal(size=(16 * 16 * 3, 4)).astype(np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=16, metric="squared-euclidean"))
    profile = Profile("", "", (Noise(0.2),), "")
    crops = np.full((2, 16, 16, 3), 0.5, np.float32)
    references = np.zeros((2, 4), np.float32)
    d, gradient = TensorFlowVerifier(manifest, profile.tensorflow, draws=6, seed=2).distances_and_gradients(
        crops, references
    )
    singles = []
    for draw in range(6):
        noisy = profile.numpy(crops, seeded_entropy(crops, 2, draw)).reshape(2, -1)
        singles.append(np.square(noisy @ weights).sum(axis=1))
    np.testing.assert_allclose(d, np.mean(singles, axis=0), rtol=1e-3)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('[{ name = "mean" }]', "2 to 8 defenses"),
        ('"mean"', "must be a list of defenses"),
        ('[{ name = "mean" }, { name = "men" }]', "number 2: .*did you mean 'mean'"),
        ('[{ name = "mean" }, { name = "choice", options = [{ name = "mean" }, { name = "median" }] }]', "themselves"),
    ],
)
def test_wrong_choices_name_the_place(tmp_path: Path, options: str, message: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(f'schema = 1\nname = "p"\n[[defense]]\nname = "choice"\noptions = {options}\n')
    with pytest.raises(InputError, match=message):
        read_profile(path)
