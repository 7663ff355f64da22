"""What several tests of audits begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import write_people
from toolkit.attacks.gaussian import Gaussian
from toolkit.audit.request import Request
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution

SIDE = 16


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """Three people who differ in brightness, and a verifier that sees brightness and fine structure."""
    path = write_people(tmp_path, SIDE, 4)
    manifest = read_manifest(path)
    pairs = load_pairs(tmp_path)
    return Request(
        manifest=manifest,
        crops=crop_pairs(pairs, SIDE, SIDE, None),
        pairs_source=pairs.source,
        attacks=(Gaussian(levels=10, draws=2),),
        profiles=(find_profile("none"), find_profile("mean3")),
        knowledge=("zero", "perfect"),
        seed=3,
        execution=Execution("cpu", threads=1),
    )
