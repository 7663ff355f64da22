"""The deployed side: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.commands import refused, sixpixels
from tests.models import write_linear
from toolkit.errors import InputError, UnavailableError
from toolkit.verifiers.edge import model_input, unit_affine
from toolkit.verifiers.latency import latencies
from toolkit.verifiers.manifest import Decision, Input, read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier
from toolkit.verifiers.scores import distances, is_same, p_same

SIDE = 8


@pytest.fixture
def weights() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, 3)).astype(np.float32)


@pytest.fixture
def crops() -> NDArray[np.float32]:
    return np.random.default_rng(1).random((7, SIDE, SIDE, 3), np.float32)


def spec(**changes: object) -> Input:
    fields: dict[str, object] = {
        "name": "input",
        "height": SIDE,
        "width": SIDE,
        "layout": "NHWC",
        "channels": "RGB",
        "low": 0.0,
        "high": 255.0,
        "standardization": "fixed",
        "mean": (127.5, 127.5, 127.5),
        "std": (128.0, 128.0, 128.0),
    }
    return Input(**{**fields, **changes})  # type: ignore[arg-type]


def test_facenets_standardization(crops: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(model_input(crops, spec()), (crops * 255 - 127.5) / 128, atol=1e-6)


def test_prewhitening_is_per_image(crops: NDArray[np.float32]) -> None:
    x = model_input(crops, spec(standardization="per-image"))
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(1, 2, 3)), 1, atol=1e-5)
    flat = model_input(np.full((1, SIDE, SIDE, 3), 0.5, np.float32), spec(standardization="per-image"))
    assert np.isfinite(flat).all()


def test_bgr_and_nchw_move_the_right_axes(crops: NDArray[np.float32]) -> None:
    plain = {"low": 0.0, "high": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    x = model_input(crops, spec(layout="NCHW", channels="BGR", **plain))
    np.testing.assert_array_equal(x[3, 0], crops[3, :, :, 2])
    np.testing.assert_array_equal(x[3, 2], crops[3, :, :, 0])


def test_per_channel_statistics_are_in_the_models_channel_order(crops: NDArray[np.float32]) -> None:
    x = model_input(crops, spec(channels="BGR", mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0)))
    np.testing.assert_allclose(x[..., 0], crops[..., 2] * 255 - 1, atol=1e-4)


def test_unit_affine_inverts_the_edge(crops: NDArray[np.float32]) -> None:
    scale, offset = unit_affine(spec(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)))
    x = model_input(crops, spec(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)))
    np.testing.assert_allclose(x * scale + offset, crops, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 7, 32])
def test_embeddings_do_not_depend_on_batching(
    tmp_path: Path, weights: NDArray[np.float32], crops: NDArray[np.float32], batch: int
) -> None:
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE))
    verifier = RuntimeVerifier(manifest, execution=Execution("cpu", batch=batch))
    np.testing.assert_allclose(verifier.embed(crops), crops.reshape(7, -1) @ weights, rtol=1e-4)
    assert verifier.images_run == 7


def test_a_fixed_batch_is_padded(tmp_path: Path, weights: NDArray[np.float32], crops: NDArray[np.float32]) -> None:
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE, batch=4))
    np.testing.assert_allclose(RuntimeVerifier(manifest).embed(crops), crops.reshape(7, -1) @ weights, rtol=1e-4)


def test_the_provider_is_the_sessions_own_word(tmp_path: Path, weights: NDArray[np.float32]) -> None:
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE))
    verifier = RuntimeVerifier(manifest, execution=Execution("cpu", "cpu"))
    assert verifier.provider == "CPUExecutionProvider"
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider is required, but the session runs on CPU"):
        RuntimeVerifier(manifest, execution=Execution("cpu", "cuda"))
    with pytest.raises(UnavailableError, match="not in this ONNX Runtime"):
        RuntimeVerifier(manifest, execution=Execution("NoSuchProvider"))


def test_a_provider_asked_for_by_name_is_had_or_refused(
    tmp_path: Path, weights: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some builds of ONNX Runtime list CUDA on machines without a GPU, and run on the CPU when asked for it."""
    path = write_linear(tmp_path, weights=weights, side=SIDE)
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    working = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: working)
    message = r"CUDAExecutionProvider was asked for, but .*CPUExecutionProvider.*--provider auto"
    with pytest.raises(UnavailableError, match=message):
        RuntimeVerifier(read_manifest(path), execution=Execution("cuda"))
    with pytest.raises(UnavailableError, match=message):
        latencies([path.read_bytes()], [], "CUDAExecutionProvider", 1, 1)
    for command in (["evaluate"], ["audit", "--attacks", "gaussian"]):
        refused(sixpixels(*command, "facenet-mini", "--limit", "2", "--provider", "cuda", "--quiet"), message)


def test_evaluate_says_what_was_asked_and_what_was_taken(work: Path) -> None:
    done = sixpixels("evaluate", work / "linear.onnx", "--pairs", work / "people", "--json")
    told = json.loads(done.stdout)
    assert told["provider_requested"] == "auto"
    assert told["provider"] in onnxruntime.get_available_providers()
    done = sixpixels("evaluate", work / "linear.onnx", "--pairs", work / "people", "--provider", "cpu")
    assert "CPUExecutionProvider (cpu requested)" in done.stdout


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_no_model(tmp_path: Path, weights: NDArray[np.float32], content: bytes | None) -> None:
    path = write_linear(tmp_path, weights=weights, side=SIDE)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"linear\.onnx"):
        RuntimeVerifier(read_manifest(path.with_suffix(".toml")))


def test_a_truncated_model(tmp_path: Path, weights: NDArray[np.float32]) -> None:
    path = write_linear(tmp_path, weights=weights, side=SIDE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot load"):
        RuntimeVerifier(read_manifest(path))


def test_a_changed_model_is_refused_before_it_is_parsed(tmp_path: Path, weights: NDArray[np.float32]) -> None:
    path = write_linear(tmp_path, weights=weights, side=SIDE)
    toml = path.with_suffix(".toml")
    toml.write_text(toml.read_text().replace("license", f'sha256 = "{"0" * 64}"\nlicense'))
    with pytest.raises(InputError, match="sha256"):
        RuntimeVerifier(read_manifest(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("height = 8", "height = 9", "has shape"),
        ('layout = "NHWC"', 'layout = "NCHW"', "has shape"),
        ('[input]\nname = "input"', '[input]\nname = "image"', "inputs are"),
        ('[output]\nname = "embedding"', '[output]\nname = "features"', "outputs are"),
    ],
)
def test_a_manifest_that_does_not_fit(
    tmp_path: Path, weights: NDArray[np.float32], old: str, new: str, message: str
) -> None:
    path = write_linear(tmp_path, weights=weights, side=SIDE)
    toml = path.with_suffix(".toml")
    toml.write_text(toml.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        RuntimeVerifier(read_manifest(path))


def test_wrong_crops_wrong_length_and_nan(tmp_path: Path, weights: NDArray[np.float32]) -> None:
    path = write_linear(tmp_path, weights=weights, side=SIDE)
    with pytest.raises(InputError, match="crops of shape"):
        RuntimeVerifier(read_manifest(path)).embed(np.zeros((1, SIDE + 1, SIDE, 3), np.float32))
    toml = path.with_suffix(".toml")
    toml.write_text(toml.read_text().replace("size = 3", "size = 4"))
    with pytest.raises(InputError, match="embeddings of 4"):
        RuntimeVerifier(read_manifest(path)).embed(np.zeros((1, SIDE, SIDE, 3), np.float32))
    broken = weights.copy()
    broken[5, 1] = np.nan
    path = write_linear(tmp_path, weights=broken, side=SIDE, name="nan")
    with pytest.raises(InputError, match="NaN"):
        RuntimeVerifier(read_manifest(path)).embed(np.ones((1, SIDE, SIDE, 3), np.float32))


def test_score_of_the_paper() -> None:
    facenet = Decision("squared-euclidean", 0.99, 4.0)
    d = np.array([0.0, 0.495, 0.99, 2.495, 4.0])
    np.testing.assert_allclose(p_same(facenet, d), [1.0, 0.75, 0.5, 0.25, 0.0])
    np.testing.assert_array_equal(is_same(facenet, d), [True, True, False, False, False])


def test_distances_are_what_their_names_say() -> None:
    a, b = np.array([[3.0, 0.0]]), np.array([[0.0, 4.0]])
    assert distances("squared-euclidean", a, b) == pytest.approx(25)
    assert distances("euclidean", a, b) == pytest.approx(5)
    assert distances("cosine", a, b) == pytest.approx(1)
    assert distances("cosine", a, -a) == pytest.approx(2)
