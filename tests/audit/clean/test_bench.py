"""The verifiers of an audit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models import write_people
from toolkit.audit.clean.bench import Bench
from toolkit.defenses.noise import Noise
from toolkit.profiles.profile import Profile, find_profile
from toolkit.verifiers import entropy, tensorflow
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution


@pytest.mark.parametrize(
    ("profile", "hashed"), [(find_profile("mean3"), 0), (Profile("noisy", "", (Noise(0.1),), ""), 8 * 3)]
)
def test_pixels_are_hashed_only_for_a_defense_that_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: Profile, hashed: int
) -> None:
    """To hash a crop takes a good part of what its gradient takes."""
    seen: list[int] = []

    def seeded(crops: np.ndarray, seed: int, draw: int = 0) -> np.ndarray:
        seen.append(len(crops))
        return entropy.seeded_entropy(crops, seed, draw)

    monkeypatch.setattr(tensorflow, "seeded_entropy", seeded)
    bench = Bench(read_manifest(write_people(tmp_path)), Execution("cpu", threads=1), 0)
    size = bench.manifest.output.size
    crops = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    bench.gradients(profile).distances_and_gradients(crops, np.ones((3, size), np.float32))
    assert sum(seen) == hashed
