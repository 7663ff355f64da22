"""Ensembles and detectors: known answers, forms that agree, what is refused, and the hardened file."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.models import checker_node, write_linear
from toolkit.defenses.bit_depth import BitDepth
from toolkit.defenses.mean import Mean
from toolkit.defenses.median import Median
from toolkit.defenses.noise import Noise
from toolkit.defenses.randomness import spread, uniforms
from toolkit.errors import InputError, UsageError
from toolkit.files import bundled
from toolkit.profiles.detector import Detector, write_threshold
from toolkit.profiles.harden import deploy, harden, write_hardened
from toolkit.profiles.profile import Profile, find_profile, read_profile
from toolkit.verifiers.entropy import ENTROPY, seeded_entropy
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier, read_model
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.variants import attack_scores, fold

SIDE = 16
WATCHED = Detector((Median(3), BitDepth(3)), 0.5, 0.05)


def linear(folder: Path, **text: object) -> Manifest:
    weights = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, 4)).astype(np.float32) / SIDE
    return read_manifest(write_linear(folder, weights=weights, side=SIDE, **text))  # type: ignore[arg-type]


def noise(n: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(1).random((n, side, side, 3), np.float32)


def in_tensorflow(manifest: Manifest, profile: Profile, seed: int = 0) -> TensorFlowVerifier:
    squeezers = [squeezer.tensorflow for squeezer in profile.squeezers]
    return TensorFlowVerifier(manifest, profile.tensorflow, seed=seed, squeezers=squeezers)


def test_the_score_is_the_distance_that_squeezing_moves_a_linear_embedding(tmp_path: Path) -> None:
    weights = np.zeros((SIDE * SIDE * 3, 1), np.float32)
    weights[0] = 10  # sees one corner pixel's red alone
    for metric, expected in (("euclidean", 6.0), ("squared-euclidean", 36.0)):
        manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE, metric=metric))
        profile = Profile("x", "", (), "", detector=Detector((Median(3), BitDepth(1)), 0.5, 0.05))
        crops = np.zeros((2, SIDE, SIDE, 3), np.float32)
        crops[1, 0, 0, 0] = 0.6  # a median takes it away, one bit makes it 1: shifts of 6 and of 4
        embeddings, scores = deploy(read_model(manifest), manifest, profile).embed_and_score(crops)
        np.testing.assert_allclose(embeddings[:, 0], [0, 6], atol=1e-5)
        np.testing.assert_allclose(scores, [0, expected], rtol=1e-5)


def test_an_average_is_the_mean_direction_at_the_mean_length() -> None:
    draws = np.array([[[3.0, 0.0]], [[0.0, 1.0]]], np.float32).reshape(2, 2)  # two draws of one image
    np.testing.assert_allclose(fold(draws, 1, 1)[0, 0], 2 * np.array([1, 1]) / np.sqrt(2), rtol=1e-6)
    unit = np.random.default_rng(2).normal(size=(12, 5)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(fold(unit, 2, 3), axis=-1), 1, rtol=1e-5)
    alone = fold(unit, 4, 3)
    np.testing.assert_array_equal(alone.reshape(12, 5), unit)
    np.testing.assert_array_equal(attack_scores("euclidean", alone[:1]), 0)


def test_draws_of_one_image_are_independent_and_the_first_is_its_own() -> None:
    entropy = np.array([5, 2**61 + 12345], np.int64)
    each = spread(entropy, 3).reshape(3, 2)
    np.testing.assert_array_equal(uniforms(each[0], 1, 8), uniforms(entropy, 1, 8))
    assert each.min() >= 0
    assert each.max() < 2**62
    drawn = uniforms(spread(entropy[:1], 64), 0, 500)
    correlation = np.corrcoef(drawn) - np.eye(64)
    assert np.abs(correlation).max() < 6 / np.sqrt(500)


@pytest.mark.parametrize("metric", ["euclidean", "squared-euclidean", "cosine"])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_forms_agree(tmp_path: Path, metric: str, draws: int, layout: str) -> None:
    manifest = linear(tmp_path, metric=metric, layout=layout, range=[0, 255])
    profile = Profile("x", "", (Mean(3), Noise(0.1)), "", draws=draws, detector=WATCHED)
    crops = noise(5)
    model = read_model(manifest)
    staged = profile.embed_and_score(
        RuntimeVerifier(manifest).embed, manifest.decision.metric, crops, seeded_entropy(crops, 3)
    )
    fused = deploy(model, manifest, profile, seed=3).embed_and_score(crops)
    known = in_tensorflow(manifest, profile, 3).embed_and_score(crops)
    for form in (fused, known):
        for found, expected in zip(form, staged, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert (staged[1] > 0).all()
    checker_node(harden(model, manifest, profile))
    # Alone as well: an image's result must not depend on its batch.
    np.testing.assert_allclose(deploy(model, manifest, profile, seed=3).embed_and_score(crops[2:3])[1], fused[1][2:3],
                               rtol=1e-4)  # fmt: skip


def test_what_is_the_same_for_all_draws_is_computed_once(tmp_path: Path) -> None:
    manifest = linear(tmp_path, layout="NCHW", range=[0, 255])
    profile = Profile("x", "", (Mean(3), Noise(0.2, block=2)), "", draws=3)
    crops, model = noise(5), read_model(manifest)
    staged, _ = profile.embed_and_score(
        RuntimeVerifier(manifest).embed, manifest.decision.metric, crops, seeded_entropy(crops, 3)
    )
    fused, _ = deploy(model, manifest, profile, seed=3).embed_and_score(crops)
    np.testing.assert_allclose(fused, staged, rtol=1e-4, atol=1e-4 * np.abs(staged).max())
    order = [node.op_type for node in onnx.load_from_string(harden(model, manifest, profile)).graph.node]
    drawn = order.index("Tile")
    assert order[:drawn].count("AveragePool") == 2, "the mean filter, and the averages over blocks"
    assert "AveragePool" not in order[drawn:]
    assert order.index("Div", order.index("Clip", drawn)) < order.index("Resize"), "back to the range, on fewer pixels"


@pytest.mark.usefixtures("facenet_network")
@pytest.mark.parametrize("name", ["detector", "ensemble"])
def test_forms_agree_before_a_real_verifier(name: str) -> None:
    manifest, profile = read_manifest(bundled("models") / "facenet-mini"), find_profile(name)
    crops = noise(2, manifest.input.height)
    metric = manifest.decision.metric
    staged = profile.embed_and_score(RuntimeVerifier(manifest).embed, metric, crops, seeded_entropy(crops, 4))
    fused = deploy(read_model(manifest), manifest, profile, seed=4).embed_and_score(crops)
    known = in_tensorflow(manifest, profile, 4).embed_and_score(crops)
    for form in (fused, known):
        for found, expected in zip(form, staged, strict=True):
            # Behind a random zoom, which is 1e-7 apart, a rare value is rounded to the other one of two levels.
            np.testing.assert_allclose(found, expected, atol=1e-3 if name == "ensemble" else 1e-5)


def test_the_gradient_of_the_score_is_its_slope(tmp_path: Path) -> None:
    manifest = linear(tmp_path, metric="squared-euclidean")
    profile = Profile("x", "", (), "", detector=Detector((Mean(3), Mean(5)), 0.5, 0.05))
    verifier, crops = in_tensorflow(manifest, profile), noise(3)
    score, gradient = verifier.scores_and_gradients(crops)
    step = 1e-2 * np.random.default_rng(3).normal(size=crops.shape).astype(np.float32)
    up, down = (verifier.embed_and_score(crops + sign * step)[1] for sign in (1, -1))
    np.testing.assert_allclose(np.sum(gradient * step, axis=(1, 2, 3)), (up - down) / 2, rtol=2e-2)
    np.testing.assert_allclose(score, verifier.embed_and_score(crops)[1], rtol=1e-5)


def test_a_hardened_file_with_a_detector_keeps_its_embedding_and_runs_with_onnxruntime_alone(tmp_path: Path) -> None:
    manifest = linear(tmp_path)
    profile = Profile("watch", "", (Noise(0.1),), "", draws=2, detector=WATCHED)
    written = write_hardened(manifest, profile, tmp_path / "out" / "hardened.onnx")
    before, after = (checker_node(path.read_bytes()).graph for path in (manifest.model, written.path))
    assert list(after.output)[:1] == list(before.output)
    assert [output.name for output in after.output] == ["embedding", "attack_score"]
    own = read_manifest(written.path)
    assert own.detector is not None
    assert (own.detector.name, own.alarm, own.detector.false_alarm) == ("attack_score", 0.5, 0.05)
    assert own.decision == manifest.decision
    crops = noise(3)
    expected = deploy(read_model(manifest), manifest, profile, seed=1).embed_and_score(crops)
    np.testing.assert_array_equal(RuntimeVerifier(own, seed=1).embed_and_score(crops)[1], expected[1])
    np.save(tmp_path / "crops.npy", crops)
    np.save(tmp_path / "entropy.npy", seeded_entropy(crops, 1))
    program = (
        "import sys, numpy, onnxruntime\n"
        f"s = onnxruntime.InferenceSession({str(written.path)!r}, providers=['CPUExecutionProvider'])\n"
        f"feed = {{'input': numpy.load('crops.npy'), {ENTROPY!r}: numpy.load('entropy.npy')}}\n"
        "embedding, score = s.run(['embedding', 'attack_score'], feed)\n"
        "assert 'toolkit' not in sys.modules and embedding.shape == (3, 4) and score.dtype == 'float32'\n"
        "print(*score)\n"
    )
    run = [sys.executable, "-I", "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.array(done.stdout.split(), float), expected[1], rtol=1e-5)
    assert "WARNING" not in done.stderr.upper()


def test_a_batch_size_may_change_from_call_to_call(tmp_path: Path) -> None:
    # Values that are larger than the input's batch must not be planned as if they were as large.
    manifest = read_manifest(bundled("models") / "facenet-mini")
    hardened = harden(read_model(manifest), manifest, Profile("x", "", (), "", detector=WATCHED))
    session = onnxruntime.InferenceSession(hardened, providers=["CPUExecutionProvider"])
    crops = noise(3, manifest.input.height)
    name = session.get_inputs()[0].name
    whole = session.run(None, {name: crops})
    for part in (crops[:1], crops[:2], crops):
        for found, expected in zip(session.run(None, {name: part}), whole, strict=True):
            np.testing.assert_allclose(found, expected[: len(part)], atol=1e-5)


def looks_at_its_batch(model: onnx.ModelProto) -> None:
    """The embedding of an image depends on the others, as it cannot in any batch."""
    model.graph.node[1].output[0] = "product"
    model.graph.node.extend(
        [
            onnx.helper.make_node("ReduceSum", ["product"], ["whole"], keepdims=1),
            onnx.helper.make_node("Add", ["product", "whole"], ["embedding"]),
        ]
    )


def test_what_cannot_run_several_variants_is_refused(tmp_path: Path) -> None:
    profile = Profile("watch", "", (), "", detector=WATCHED)
    fixed = linear(tmp_path, batch=1, name="fixed")
    assert harden(read_model(fixed), fixed, profile)
    model = onnx.load(fixed.model)
    looks_at_its_batch(model)
    onnx.save(model, fixed.model)
    with pytest.raises(
        InputError, match=r"fixed\.onnx: has a fixed batch size of 1, but profile 'watch' runs.*computes something else"
    ):
        harden(read_model(fixed), fixed, profile)
    assert harden(read_model(fixed), fixed, find_profile("mean3"))
    hardened = read_manifest(write_hardened(linear(tmp_path), profile, tmp_path / "hardened.onnx").path)
    with pytest.raises(InputError, match="is hardened already"):
        harden(read_model(hardened), hardened, profile)
    toml = hardened.path.read_text()
    hardened.path.write_text(toml.replace('output = "attack_score"', 'output = "alarm"'))
    with pytest.raises(InputError, match="manifest's detector names 'alarm'"):
        RuntimeVerifier(read_manifest(hardened.path))


DETECTOR = '[detector]\nthreshold = 0.5\nfalse_alarm = 0.05\n[[detector.squeezer]]\nname = "median"\n'
NOISE = '[[defense]]\nname = "noise"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DETECTOR.replace("threshold", "treshold"), "did you mean 'threshold'"),
        (DETECTOR.replace('"median"', '"medain"'), "squeezer 1: unknown defense 'medain'; did you mean 'median'"),
        (DETECTOR.replace('"median"', '"noise"'), "squeezer 'noise' is random"),
        (DETECTOR.replace("threshold = 0.5", ""), "calibrate-detector"),
        (DETECTOR.replace("0.5", "0"), "threshold must be a positive number"),
        (DETECTOR.replace("0.05", "5"), "false_alarm must be between 0 and 1"),
        ("[detector]\nthreshold = 0.5\nfalse_alarm = 0.05\nsqueezer = []", "needs 1 to 8"),
        ("detector = 1", "must be a table"),
        (NOISE + "[ensemble]\ndrawz = 4", "did you mean 'draws'"),
        (NOISE + "[ensemble]\ndraws = 1", "from 2 to 1024"),
        (NOISE + "[ensemble]\ndraws = 1025", "from 2 to 1024"),
        ('[[defense]]\nname = "mean"\n[ensemble]\ndraws = 4', "no defense is random"),
    ],
)
def test_broken_ensembles_and_detectors_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(f'schema = 1\nname = "x"\n{text}')
    with pytest.raises(InputError, match=message) as caught:
        read_profile(path)
    assert "p.toml" in str(caught.value)


def test_writing_a_threshold_keeps_all_else(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(f'# mine\nschema = 1\nname = "x"\n# why\n{DETECTOR}# end\n')
    write_threshold(path, 0.25, 0.01, "for a on 300 crops")
    changed = path.read_text()
    assert "threshold = 0.25 # calibrated for a on 300 crops\nfalse_alarm = 0.01\n" in changed
    assert all(comment in changed for comment in ("# mine\n", "# why\n", "# end\n"))
    write_threshold(path, 0.5, 0.05, "for b on 60 crops")
    assert "calibrated for b" in path.read_text()
    assert "calibrated for a" not in path.read_text()
    assert tomllib.loads(path.read_text())["detector"]["squeezer"] == [{"name": "median"}]
    path.write_text('schema = 1\nname = "x"\n')
    with pytest.raises(UsageError, match=r"has no \[detector\]"):
        write_threshold(path, 0.25, 0.01, "")
