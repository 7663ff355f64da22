"""Fixtures for all tests: the shared faces, which are beside the project and never inside it."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from toolkit.verifiers.quiet import settle_tensorflow

_SHARED = Path(__file__).resolve().parents[2] / "shared"

# A busy machine is not a slow test.
hypothesis.settings.register_profile("toolkit", deadline=None)
hypothesis.settings.load_profile("toolkit")

# Some tests import TensorFlow themselves, and workers are compared with this process.
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
