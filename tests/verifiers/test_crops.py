"""Crops and their embeddings, a part at a time: clean pairs of any number fit in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models import write_people
from tests.progress import Silent
from toolkit.audit.evaluate import calibrate_verifier, evaluate_verifier
from toolkit.faces.pairs import load_pairs
from toolkit.faces.rows import Rows, gather_rows
from toolkit.pixels import to_unit
from toolkit.verifiers.crops import Embedded, crop_for, embed_crops
from toolkit.verifiers.manifest import Decision, read_manifest
from toolkit.verifiers.parity import compare, pair_distances
from toolkit.verifiers.scores import distances, is_same

SIDE = 16


class Recorded:
    """A verifier that remembers how many crops it was given at once."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def embed_and_score(self, crops: NDArray[np.float32]) -> Embedded:
        self.given.append(len(crops))
        return crops.mean(axis=(1, 2)), crops.max(axis=(1, 2, 3))


@pytest.mark.parametrize("rows", [None, np.array([4, 0, 6, 2])])
def test_crops_are_embedded_in_batches(rows: NDArray[np.intp] | None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3), np.uint8)
    chosen = to_unit(images if rows is None else images[rows])
    model, shown = Recorded(), Silent()
    parts = list(embed_crops(model, images, shown.stage("", 7), batch=3, rows=rows))
    assert model.given == ([3, 3, 1] if rows is None else [3, 1])
    assert shown.done == len(chosen)
    np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), chosen.mean(axis=(1, 2)))
    np.testing.assert_array_equal(np.concatenate([scores for _, scores in parts]), chosen.max(axis=(1, 2, 3)))


def test_embeddings_on_disk_are_compared_as_those_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(2500, 3)).astype(np.float32)
    after = before + rng.normal(scale=0.1, size=before.shape).astype(np.float32)
    after[2400, 1] += 9
    index = rng.integers(0, 2500, (3000, 2))
    one, other = (gather_rows([side], tmp_path) for side in (before, after))
    d, moved = (distances("euclidean", side[index[:, 0]], side[index[:, 1]]) for side in (before, after))
    np.testing.assert_array_equal(pair_distances("euclidean", one, index), d)
    decision = Decision("euclidean", 2.0, 10.0)
    for given in ((other, one), (after, before)):
        found = compare(*given, index, decision, "here")
        assert found.largest_embedding_difference == pytest.approx(np.abs(after - before).max())
        assert found.largest_distance_difference == np.abs(moved - d).max()
        assert found.flips == (is_same(decision, d) != is_same(decision, moved)).sum() > 0
        assert (found.crops, found.pairs) == (2500, 3000)


def test_commands_on_clean_pairs_keep_crops_on_disk_and_show_progress(tmp_path: Path) -> None:
    manifest = read_manifest(write_people(tmp_path, side=SIDE))
    pairs = load_pairs(tmp_path / "pairs.csv")
    crops = crop_for(manifest, pairs)
    assert isinstance(crops.images, Rows)
    for measure in (evaluate_verifier, lambda *a, **k: calibrate_verifier(a[0], 0.5, pairs=a[1], **k)):
        shown = Silent()
        measure(manifest, pairs, progress=shown)
        assert shown.done == len(crops.images)
