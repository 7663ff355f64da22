"""Fixtures for all tests: the shared faces, which are beside the project and never inside it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import hypothesis
import numpy as np
import pytest

from tests.models import write_linear
from tests.served.running import Served
from toolkit.profiles.harden import harden_verifier
from toolkit.quiet import settle_tensorflow
from toolkit.verifiers.manifest import find_manifest

if TYPE_CHECKING:
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

# Of the crops of `work`.
WORK_SIDE = 16
_SHARED = Path(__file__).resolve().parents[2] / "shared"

# A busy machine is not a slow test.
hypothesis.settings.register_profile("toolkit", deadline=None)
hypothesis.settings.load_profile("toolkit")

# Several processes run tests at once: one thread of TensorFlow, ONNX Runtime and linear algebra in each of them, and in
# every process that they start.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Some tests import TensorFlow themselves.
settle_tensorflow()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _SHARED.is_dir():
        return
    if os.environ.get("CI"):
        raise pytest.UsageError(f"{_SHARED} is missing, and in CI the tests on real faces must run")
    skip = pytest.mark.skip(reason=f"the faces in {_SHARED} are not here")
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with lfw/, verifiers/ and faces_unlabeled/; only for tests marked `shared`."""
    return _SHARED


@pytest.fixture(scope="session")
def facenet_network() -> Callable[[Any], Any]:
    """The network of facenet-mini in TensorFlow: loading and tracing it takes seconds.

    As long as a test process holds it, audits in that process use it too, instead of loading their own.
    """
    from toolkit.verifiers.differentiable import differentiable

    return differentiable(find_manifest("facenet-mini"))


@pytest.fixture(scope="session")
def facenet_mini(facenet_network: Callable[[Any], Any]) -> TensorFlowVerifier:
    """The bare facenet-mini with gradients."""
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    return TensorFlowVerifier(find_manifest("facenet-mini"), network=facenet_network)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A verifier of brightness, linear.onnx, and pairs of three people, people/."""
    rng = np.random.default_rng(0)
    for person, level in (("a", 60), ("b", 120), ("c", 190)):
        (tmp_path / "people" / person).mkdir(parents=True)
        for i in range(4):
            image = np.clip(rng.normal(level, 6, (WORK_SIDE, WORK_SIDE, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "people" / person / f"{i}.png"), image)
    size = WORK_SIDE * WORK_SIDE * 3
    weights = np.stack([np.full(size, 1 / size), rng.choice([-1, 1], size) * 12 / size], 1)
    write_linear(tmp_path, weights=weights, side=WORK_SIDE, threshold=0.12)
    return tmp_path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real model server, with the shipped verifier, a copy of it to swap, and a hardened file."""
    if importlib.util.find_spec("kserve") is None and not os.environ.get("CI"):
        pytest.skip("kserve is not installed: pip install -c constraints.txt -e '.[dev]'")
    folder = tmp_path_factory.mktemp("served")
    manifest = find_manifest("facenet-mini")
    shutil.copy(manifest.model, folder / "bare.onnx")
    shutil.copy(manifest.model, folder / "swapped.onnx")
    harden_verifier("facenet-mini", "mean3", folder / "hardened.onnx")
    server = Served(folder)
    server.start()
    yield server
    server.stop()
