"""Every common form of an exported verifier: it works with the original's decisions, or one line says why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.commands import refused, sixpixels
from tests.kinds import KINDS, SIDE, SIZE, Kind, node, reference
from toolkit.defenses.median import Median
from toolkit.defenses.noise import Noise
from toolkit.errors import InputError
from toolkit.export.quantize import quantized
from toolkit.profiles.detector import Detector
from toolkit.profiles.harden import deploy, harden, hardened_manifest
from toolkit.profiles.profile import Profile, find_profile
from toolkit.quiet import import_tensorflow
from toolkit.verifiers import differentiable as networks
from toolkit.verifiers.differentiable import differentiable, gradients_from, model_for_gradients, network_of
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier, read_model
from toolkit.verifiers.tensorflow import TensorFlowVerifier

IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8) // np.array(
    [1, 2, 4], np.uint8
).reshape(3, 1, 1, 1)
CROPS = (IMAGES / np.float32(255)).astype(np.float32)
# An ensemble with a detector: four variants of each image go through the verifier in one batch.
WATCHED = Profile("watched", "", (Noise(0.05),), "", draws=2, detector=Detector((Median(3),), 0.5, 0.05))


def tolerance(kind: Kind) -> float:
    """Of float16, whose values ONNX Runtime rounds in other places for other batches."""
    return 2e-3 if kind in (KINDS["float16 input"], KINDS["fp16 with float input"]) else 2e-6


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_run_hardened_differentiated_and_quantized(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    manifest = kind.write(tmp_path)
    embed, model = reference(manifest), read_model(manifest)
    expected = embed(CROPS)
    np.testing.assert_allclose(RuntimeVerifier(manifest, model).embed(CROPS), expected, atol=1e-6)
    signature = onnx.load(manifest.model).graph
    for profile in (find_profile("mean3"),) if kind.common else (find_profile("mean3"), WATCHED):
        hardened = harden(model, manifest, profile)
        found = RuntimeVerifier(hardened_manifest(manifest, profile), hardened, seed=0).embed_and_score(CROPS)
        staged = profile.embed_and_score(embed, "euclidean", CROPS, seeded_entropy(CROPS, 0))
        for value, right in zip(found, staged, strict=True):
            np.testing.assert_allclose(value, right, rtol=0, atol=tolerance(kind) * np.abs(expected).max())
        graph = onnx.load_model_from_string(hardened).graph
        assert graph.input[0] == signature.input[0]
        assert list(graph.output)[: len(signature.output)] == list(signature.output)
    if kind.gradients:
        tf = import_tensorflow()
        network = network_of(manifest, model_for_gradients(manifest)[0])
        x = tf.constant(CROPS.transpose(0, 3, 1, 2) * np.float32(255))
        with tf.GradientTape() as tape:
            tape.watch(x)
            embeddings = network(x)
        np.testing.assert_allclose(embeddings, expected, atol=tolerance(kind) * np.abs(expected).max())
        assert np.abs(tape.gradient(embeddings, x)).max() > 0
    if kind.small and not kind.common:
        small = RuntimeVerifier(manifest, quantized(model, manifest, "fp16", IMAGES[:0]).SerializeToString())
        np.testing.assert_allclose(small.embed(CROPS), expected, atol=5e-3 * np.abs(expected).max())


def test_other_outputs_are_those_of_the_defended_image(tmp_path: Path) -> None:
    manifest = KINDS["several outputs, ages by Softmax"].write(tmp_path)
    model = read_model(manifest)
    ages = [RuntimeVerifier(manifest, content)._session.run(["age"], {"input": tensors()})[0] for content in (
        model, harden(model, manifest, Profile("x", "", (), "", detector=WATCHED.detector))
    )]  # fmt: skip
    np.testing.assert_allclose(ages[1], ages[0], atol=1e-6)


def tensors() -> np.ndarray:
    return CROPS.transpose(0, 3, 1, 2) * np.float32(255)


@pytest.mark.parametrize(
    ("name", "why"),
    [("Loop", "Loop has no gradient"), ("Resize with antialias", "with antialias is not supported"),
     ("uint8 input", None), ("embedding (D,) by Gather", None)],
)  # fmt: skip
def test_an_audit_of_a_kind_ends_with_the_decisions_of_the_original(work: Path, name: str, why: str | None) -> None:
    """Where gradients cannot be computed, the attacks that need them alone are not run."""
    KINDS[name].write(work, threshold=0.3)
    run = work / "run"
    done = sixpixels(
        "audit", work / "tiny.onnx", "--pairs", work / "people", "--limit", 6, "--profiles", "none,mean3", "--attacks",
        "fgsm,gaussian", "--run", run, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    skipped = {entry["attack"]: entry["reason"] for entry in report["unavailable"]}
    assert set(skipped) == ({"fgsm"} if why else set())
    if why:
        assert why in skipped["fgsm"]
    assert all(check["passed"] for check in report["checks"] if check["name"] == "parity")
    told = sixpixels(
        "quantize", work / "tiny.onnx", "--to", "int8", "-o", work / "small.onnx", "--max-flips", 9, "--calibration", 1,
        "--pairs", work / "people",
    )  # fmt: skip
    if name == "Loop":
        refused(told, "has branches or loops")
    else:
        assert told.returncode == 0, told.stderr


def test_bytes_are_rounded_at_the_edge_and_have_straight_gradients(tmp_path: Path) -> None:
    manifest = KINDS["uint8 input"].write(tmp_path)
    runtime, verifier = RuntimeVerifier(manifest), TensorFlowVerifier(manifest)
    plain = TensorFlowVerifier(KINDS["as it is"].write(tmp_path))
    rounded = np.rint(CROPS * 255) / np.float32(255)
    # Half a level and a little less, in both directions: the same bytes.
    for shift in (0.49, -0.49):
        moved = (rounded + np.float32(shift / 255)).clip(0, 1)
        np.testing.assert_array_equal(runtime.embed(moved), runtime.embed(rounded))
        np.testing.assert_allclose(verifier.embed(moved), verifier.embed(rounded), atol=1e-5)
    found, right = (v.distances_and_gradients(rounded, np.zeros((3, SIZE), np.float32)) for v in (verifier, plain))
    for value, expected in zip(found, right, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_a_filter_before_bytes_is_rounded_as_an_image_is(tmp_path: Path) -> None:
    manifest, profile = KINDS["uint8 input"].write(tmp_path), find_profile("mean3")
    fused = deploy(read_model(manifest), manifest, profile).embed(CROPS)
    filtered = np.rint(profile.numpy(CROPS) * 255).clip(0, 255) / np.float32(255)
    np.testing.assert_allclose(fused, reference(manifest)(filtered), atol=1e-6)


def test_bytes_with_another_range_are_refused(tmp_path: Path) -> None:
    manifest = KINDS["uint8 input"].write(tmp_path)
    manifest.path.write_text(manifest.path.read_text().replace("[0, 255]", "[0, 1]"))
    with pytest.raises(InputError, match=r"takes pixels as bytes; write range = \[0, 255\] into"):
        RuntimeVerifier(read_manifest(manifest.path))


def test_a_batch_that_cannot_be_freed_names_both_reasons_where_gradients_fail(tmp_path: Path) -> None:
    """The embedding is centered over the batch, of which only the first image is taken."""
    manifest = KINDS["embedding (D,) by Gather"].write(tmp_path)
    model = onnx.load(manifest.model)
    model.graph.node[-1].input[0] = "centered"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.node.insert(6, node("ReduceMax", "row zero", "largest"))
    model.graph.node.insert(7, node("Add", "row largest", "centered"))
    onnx.save(model, manifest.model)
    with pytest.raises(InputError, match=r"TensorFlow cannot run it.*; and it has no normal form .*something else"):
        differentiable(manifest)


def test_gradients_of_a_file_without_normal_form_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> bytes:
        raise InputError("verifier.onnx: cannot be normalized")

    manifest = KINDS["as it is"].write(tmp_path)
    network = differentiable(manifest)
    assert gradients_from(manifest) == "the ONNX file itself"
    del network
    # Another file, so that the network of the first is not taken.
    model = onnx.load(manifest.model)
    model.doc_string = "another"
    onnx.save(model, manifest.model)
    monkeypatch.setattr(networks, "normalized", refused)
    differentiable(manifest)
    said = "the ONNX file itself as it is, because it has no normal form: verifier.onnx: cannot be normalized"
    assert gradients_from(manifest) == said
