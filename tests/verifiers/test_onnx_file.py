"""External data: opened beside the model, inside its folder, hashed with it; and graphs inside graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.commands import refused, sixpixels
from tests.models import write_linear
from toolkit.errors import InputError
from toolkit.profiles.harden import write_hardened
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.onnx_file import model_sha256, parse_onnx, read_onnx
from toolkit.verifiers.runtime import RuntimeVerifier

SIDE = 8
WEIGHTS = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, 3)).astype(np.float32)
CROPS = np.random.default_rng(1).random((2, SIDE, SIDE, 3), np.float32)


def write_outside(folder: Path, location: str = "weights.bin", **entries: object) -> Path:
    """A linear verifier whose weights lie in another file, after 16 other bytes."""
    path = write_linear(folder, weights=WEIGHTS, side=SIDE)
    proto = onnx.load(path)
    tensor = proto.graph.initializer[0]
    (folder / "weights.bin").write_bytes(bytes(16) + tensor.raw_data)
    fields = {"location": location, "offset": 16, "length": len(tensor.raw_data), **entries}
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_come_from_beside_the_model_not_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "weights.bin").write_bytes(bytes(16 + WEIGHTS.nbytes))
    (tmp_path / "model").mkdir()
    path = write_outside(tmp_path / "model")
    monkeypatch.chdir(elsewhere)
    embeddings = RuntimeVerifier(read_manifest(path)).embed(CROPS)
    np.testing.assert_allclose(embeddings, CROPS.reshape(2, -1) @ WEIGHTS, rtol=1e-4)


def test_the_manifests_hash_covers_external_data(tmp_path: Path) -> None:
    path = write_outside(tmp_path)
    data = tmp_path / "weights.bin"
    digest = model_sha256(path)
    assert digest == hashlib.sha256(path.read_bytes() + data.read_bytes()).hexdigest()
    toml = path.with_suffix(".toml")
    toml.write_text(toml.read_text().replace("license", f'sha256 = "{digest}"\nlicense'))
    RuntimeVerifier(read_manifest(path))
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="sha256"):
        RuntimeVerifier(read_manifest(path))


def test_a_model_in_one_file_keeps_its_hash(tmp_path: Path) -> None:
    path = write_linear(tmp_path, weights=WEIGHTS, side=SIDE)
    assert model_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../secret.bin"}, "leaves the folder"),
        ({"location": "/etc/hostname"}, "leaves the folder"),
        ({"location": "link.bin"}, "leaves the folder"),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, "are missing"),
        ({"location": "absent.bin"}, "are missing"),
        ({"offset": 17}, "do not belong together"),
        ({"offset": -1}, "no number"),
        ({"offset": "9" * 400}, "no number"),
        ({"length": 4}, "do not belong together"),
        ({"length": 1 << 45}, "do not belong together"),
    ],
)
def test_external_data_that_leave_the_folder_or_do_not_fit_are_refused(
    tmp_path: Path, entries: dict[str, object], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16 + WEIGHTS.nbytes))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = write_outside(folder, **entries)  # type: ignore[arg-type]
    refused(sixpixels("evaluate", path), message)


def test_data_that_claim_terabytes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = write_outside(tmp_path)
    proto = onnx.load_model_from_string(path.read_bytes())
    proto.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    del proto.graph.initializer[0].external_data[2]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="do not belong together"):
        read_onnx(path)


def test_many_tensors_of_the_same_bytes_are_not_taken_many_times(tmp_path: Path) -> None:
    path = write_outside(tmp_path)
    with (tmp_path / "weights.bin").open("r+b") as stream:
        stream.truncate(1 << 30)
    proto = onnx.load_model_from_string(path.read_bytes())
    tensor = proto.graph.initializer[0]
    tensor.dims[:] = [1 << 20, 240]
    del tensor.external_data[1:]
    for i in range(3):
        proto.graph.initializer.add().CopyFrom(tensor)
        proto.graph.initializer[-1].name = f"again{i}"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="larger than 2 GB together"):
        read_onnx(path)


def test_a_model_with_external_data_is_hardened_into_one_file(tmp_path: Path) -> None:
    manifest = read_manifest(write_outside(tmp_path))
    written = write_hardened(manifest, find_profile("mean3"), tmp_path / "out" / "hardened.onnx")
    hardened = RuntimeVerifier(read_manifest(written.path)).embed(CROPS)
    defended = find_profile("mean3").numpy(CROPS)
    np.testing.assert_allclose(hardened, defended.reshape(2, -1) @ WEIGHTS, rtol=1e-3, atol=1e-4)


def test_gradients_of_a_model_with_external_data(tmp_path: Path) -> None:
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    embeddings = TensorFlowVerifier(read_manifest(write_outside(tmp_path))).embed(CROPS)
    np.testing.assert_allclose(embeddings, CROPS.reshape(2, -1) @ WEIGHTS, rtol=1e-4)


def nested(depth: int) -> onnx.ModelProto:
    graph = onnx.helper.make_graph([], "innermost", [], [])
    for _ in range(depth):
        node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=graph)
        graph = onnx.helper.make_graph([node], "body", [], [])
    return onnx.helper.make_model(graph)


def broken_format(content: bytes) -> bytes:
    return content[:4] + b"ORTM" + content[8:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken_format, "ONNX Runtime's own format"),
        (lambda _: nested(20).SerializeToString(), "more than 16 deep"),
        (lambda content: content[:-5], "is not an ONNX file"),
        (lambda _: b"", "1 byte to 2 GB"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(change(write_linear(tmp_path, weights=WEIGHTS, side=SIDE).read_bytes()))
    with pytest.raises(InputError, match=message):
        parse_onnx(read_onnx(path).content, path)
