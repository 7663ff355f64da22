"""Manifests: what is read, what is refused, and where the message points."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models import write_linear
from toolkit.errors import InputError
from toolkit.files import bundled
from toolkit.verifiers.manifest import find_manifest, read_manifest
from toolkit.verifiers.onnx_file import read_onnx
from toolkit.verifiers.runtime import read_model


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_linear(tmp_path, weights=np.ones((16 * 16 * 3, 2)), side=16).with_suffix(".toml")


def test_all_shipped_manifests_are_valid() -> None:
    names = [read_manifest(path).name for path in bundled("models").glob("*/model.toml")]
    assert "dlib-resnet" in names


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold = 1.0", "threshold = 9.0", "decision.threshold must be between 0 and the maximum"),
        ("threshold = 1.0", "threshold = 0.0", "decision.threshold"),
        ("threshold = 1.0", "threshold = nan", "decision.threshold must be finite"),
        ('metric = "euclidean"', 'metric = "manhattan"', "decision.metric must be one of"),
        ('layout = "NHWC"', 'layout = "NHCW"', "input.layout must be one of"),
        ("std = 1.0", "std = 0.0", "input.std must be positive"),
        ("range = [0, 1]", "range = [1, 0]", r"input.range must be \[low, high\]"),
        ("size = 2", "size = 0", "output.size must be at least 1"),
        ("height = 16", "height = 99999", "input.height must be from"),
        ("height = 16", "height = true", "input.height must be of type int"),
        ("normalize = false", "", "output.normalize is missing"),
        ("normalize = false", "normalize = false\nsoftmax = 1", "output.softmax is not a known key"),
        ("schema = 1", "schema = 7", "schema is 7"),
        ('file = "linear.onnx"', 'file = "../linear.onnx"', "leaves the folder"),
        ('file = "linear.onnx"', 'file = "/etc/passwd"', "leaves the folder"),
        ("[decision]", "[decision", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(manifest: Path, old: str, new: str, message: str) -> None:
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_manifest(manifest)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 600), junk=st.text(max_size=20))
def test_a_damaged_manifest_is_an_input_error_or_valid(manifest: Path, cut: int, junk: str) -> None:
    text = manifest.read_text()
    damaged = manifest.with_name("damaged.toml")
    damaged.write_text(text[:cut] + junk + text[cut:], encoding="utf-8")
    with suppress(InputError):
        read_manifest(damaged)


def test_a_manifest_for_another_file_is_not_used(tmp_path: Path, manifest: Path) -> None:
    manifest.rename(tmp_path / "model.toml")
    other = tmp_path / "other.onnx"
    other.write_bytes(b"x")
    with pytest.raises(InputError, match=r"describes linear\.onnx, not other\.onnx"):
        read_manifest(other)


def test_missing_model_and_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        find_manifest(str(tmp_path / "nothing.onnx"))
    lonely = tmp_path / "lonely.onnx"
    lonely.write_bytes(b"x")
    with pytest.raises(InputError, match="no manifest found"):
        find_manifest(str(lonely))


@pytest.mark.shared
def test_a_known_model_is_recognized_by_its_hash(shared: Path) -> None:
    manifest = find_manifest(str(shared / "verifiers" / "dlib_resnet.onnx"))
    assert manifest.name == "dlib-resnet"
    assert manifest.model == shared / "verifiers" / "dlib_resnet.onnx"


def test_a_link_that_the_user_names_is_followed_and_one_that_a_manifest_names_is_not(tmp_path: Path) -> None:
    """Caches of downloaded models are folders of links."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1a2b"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    path = write_linear(blobs, weights=np.eye(192, 4, dtype=np.float32), side=8)
    (snapshot / "model.onnx").symlink_to(path)
    text = path.with_suffix(".toml").read_text()
    (snapshot / "model.toml").write_text(text.replace(path.name, "model.onnx"))
    assert read_model(read_manifest(snapshot / "model.onnx")) == path.read_bytes()
    with pytest.raises(InputError, match=r"leaves the folder .*; if you trust the link, give .*model.onnx itself"):
        read_manifest(snapshot / "model.toml")
    with pytest.raises(InputError, match="leaves the folder"):
        read_manifest(snapshot)


def test_external_data_of_a_linked_model_lie_where_it_lies(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    for folder in (blobs, snapshot):
        folder.mkdir()
    path = write_linear(blobs, weights=np.eye(192, 4, dtype=np.float32), side=8)
    model = onnx.load(path)
    onnx.save(model, blobs / "5f.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (blobs / "weights.bin").rename(blobs / "c0")
    (snapshot / "model.onnx").symlink_to(blobs / "5f.onnx")
    (snapshot / "weights.bin").symlink_to(blobs / "c0")
    assert read_onnx(snapshot / "model.onnx").sha256 != read_onnx(path).sha256
    (tmp_path / "elsewhere").write_bytes((blobs / "c0").read_bytes())
    (snapshot / "weights.bin").unlink()
    (snapshot / "weights.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leaves the folder"):
        read_onnx(snapshot / "model.onnx")
