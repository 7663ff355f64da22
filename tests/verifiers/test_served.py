"""A real model server serves the shipped verifier and a hardened file of it: the embeddings of here, or an error."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.served.running import WAYS, Served, describe
from tests.verifiers.remotes import Asked, connect
from toolkit.errors import InputError, UnavailableError
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.verifiers.manifest import find_manifest, read_manifest
from toolkit.verifiers.remote.calls import TransientError
from toolkit.verifiers.runtime import Execution, RuntimeVerifier

CPU = Execution("cpu", threads=1)


@pytest.fixture(autouse=True)
def no_faults_are_left(served: Served) -> None:
    served.next([])


@pytest.fixture(scope="module")
def faces() -> Any:
    manifest = find_manifest("facenet-mini")
    spec = manifest.input
    assert manifest.alignment is not None
    return to_unit(
        crop_pairs(load_pairs(embedded_pairs(), limit=3), spec.width, spec.height, manifest.alignment.template).images
    )


@pytest.mark.parametrize("model", ["bare", "hardened"])
@pytest.mark.parametrize("way", WAYS)
def test_embeddings_are_those_of_the_file_here(
    tmp_path: Path, served: Served, faces: Any, way: str, model: str
) -> None:
    far = connect(describe(tmp_path, served, way, model)).embed(faces)
    manifest = find_manifest("facenet-mini") if model == "bare" else read_manifest(served.folder / "hardened.onnx")
    near = RuntimeVerifier(manifest, execution=CPU).embed(faces)
    np.testing.assert_allclose(far, near, atol=1e-5)
    if model == "hardened":
        bare = RuntimeVerifier(find_manifest("facenet-mini"), execution=CPU).embed(faces)
        assert np.abs(bare - near).max() > 1e-3, "the hardened file is another one"


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_is_not_there_is_refused_without_sending_a_face(tmp_path: Path, served: Served, way: str) -> None:
    with pytest.raises(InputError, match=r"404|NOT_FOUND"):
        connect(describe(tmp_path, served, way, "other"))


@pytest.mark.parametrize("way", WAYS)
def test_a_busy_server_is_asked_again(tmp_path: Path, served: Served, faces: Any, way: str) -> None:
    far = connect(describe(tmp_path, served, way))
    served.next(["busy"])
    with pytest.raises(TransientError, match=r"429|RESOURCE_EXHAUSTED") as caught:
        far.service.embeddings(faces[:1])
    assert caught.value.wait == (None if way == "grpc" else 1)
    served.next(["busy"])
    assert far.embed(faces[:1]).shape == (1, 128)
    served.next(["busy", "busy"])
    with pytest.raises(UnavailableError, match="after 2 attempts"):
        far.embed(faces[:1])


@pytest.mark.parametrize("way", WAYS)
def test_a_slow_server_is_given_up_at_the_timeout(tmp_path: Path, served: Served, faces: Any, way: str) -> None:
    far = connect(describe(tmp_path, served, way, limits="timeout = 0.5"))
    served.next(["slow"])
    begun = time.monotonic()
    with pytest.raises(TransientError, match=r"no answer from .* in 0\.5 s"):
        far.service.embeddings(faces[:1])
    assert time.monotonic() - begun < 1.4, "the server answers after 1.5 s"


def test_embeddings_of_a_model_that_is_swapped_under_way_are_others(tmp_path: Path, served: Served, faces: Any) -> None:
    ways = {way: connect(describe(tmp_path, served, way, "swapped")) for way in WAYS}
    before = {way: far.embed(faces[:1]) for way, far in ways.items()}
    (served.folder / "new").write_bytes((served.folder / "hardened.onnx").read_bytes())
    (served.folder / "new").replace(served.folder / "swapped.onnx")
    for way, far in ways.items():
        assert np.abs(far.embed(faces[:1]) - before[way]).max() > 1e-3


def test_a_server_that_dies_is_reported_and_used_again_when_it_is_back(
    tmp_path: Path, served: Served, faces: Any
) -> None:
    ways = {way: connect(describe(tmp_path, served, way, limits="timeout = 5\nretries = 1")) for way in WAYS}
    before = {way: far.embed(faces[:1]) for way, far in ways.items()}
    served.stop()
    try:
        for way, far in ways.items():
            with pytest.raises(TransientError):
                far.service.embeddings(faces[:1])
            with pytest.raises(UnavailableError, match="after 2 attempts"):
                far.embed(faces[:1])
            with pytest.raises(UnavailableError, match="after 2 attempts"):
                connect(describe(tmp_path, served, way, limits="retries = 1"))
    finally:
        served.start()
    for way, far in ways.items():
        np.testing.assert_array_equal(patient(far, faces[:1]), before[way])


def patient(far: Asked, faces: Any) -> Any:
    """Repeat in real time: a channel of gRPC waits half a second before it connects again."""
    for _ in range(20):
        try:
            return far.embed(faces)
        except UnavailableError:
            time.sleep(0.5)
    return far.embed(faces)
