"""What a profile costs, on a verifier whose errors are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.models import write_linear
from tests.progress import Silent
from toolkit.audit.selection.cost import BATCHES, measure_costs
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution

SIDE = 16


def test_a_filter_that_hides_the_difference_costs_false_matches(tmp_path: Path) -> None:
    # Two people differ in a checkerboard alone, which a mean filter takes away.
    board = np.where(np.indices((SIDE, SIDE)).sum(0) % 2, 1.0, -1.0)[..., None].repeat(3, -1)
    weights = (board / board.size).reshape(-1, 1).astype(np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE, threshold=0.1))
    one, other = (np.clip(128 + sign * 40 * board, 0, 255).astype(np.uint8) for sign in (1, -1))
    images = np.stack([one, one + 1, other, other + 1])
    pairs = (Pair("0", "1", True), Pair("2", "3", True), Pair("0", "2", False), Pair("1", "3", False))
    crops = CropSet(images, ("0", "1", "2", "3"), pairs, np.array([[0, 1], [2, 3], [0, 2], [1, 3]]), ())
    profiles, shown = [find_profile("none"), find_profile("mean3")], Silent()
    costs = measure_costs(manifest, crops, "made up", profiles, Execution("cpu", threads=1), 3, shown)
    bare, filtered = costs.profiles
    assert shown.done == 2 * len(images)
    assert (bare.fnmr.value, bare.fmr.value) == (0, 0)
    assert (filtered.fnmr.value, filtered.fmr.value) == (0, 1)
    assert bare.recalibrated is None, "a verifier without a false match gives nothing to calibrate to"
    for cost in (bare, filtered):
        assert [t.batch for t in cost.timings] == list(BATCHES)
        assert all(0 < t.p50 <= t.p99 for t in cost.timings)
        assert all(t.memory is not None and 0 <= t.memory < 1 << 30 for t in cost.timings)
