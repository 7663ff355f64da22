"""Group impersonation: whom a probe is held against, and what counts as a match."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.audit.conftest import SIDE
from tests.models import write_linear
from tests.progress import Silent
from toolkit.attacks.deepfool import DeepFool
from toolkit.audit.clean.group import aim, enroll, reference_distances
from toolkit.audit.request import Request, run_name
from toolkit.audit.results.outcomes import read_run
from toolkit.audit.results.record import read_record, write_record
from toolkit.audit.run import run_audit
from toolkit.documents import to_json
from toolkit.errors import InputError, InsufficientError, UsageError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair
from toolkit.files import write_bytes
from toolkit.profiles.profile import find_profile
from toolkit.report.schemas import report_schema
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution
from toolkit.verifiers.scores import distances

LEVELS = {"a": 40, "b": 90, "c": 140, "d": 190, "e": 240}


def people(named: bool = True) -> CropSet:
    """Five people, one gray each, two crops of everybody."""
    names = [f"{person}{i}" for person in LEVELS for i in (0, 1)]
    images = np.stack([np.full((SIDE, SIDE, 3), LEVELS[name[0]], np.uint8) for name in names])
    pairs = tuple(Pair(f"{p}0", f"{p}1", True, None, p if named else None, p if named else None) for p in LEVELS)
    index = np.array([[2 * i, 2 * i + 1] for i in range(len(LEVELS))])
    return CropSet(images, tuple(names), pairs, index, ())


def brightness(crops: CropSet) -> np.ndarray:
    return crops.images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] / np.float32(255)


def test_one_crop_each_is_enrolled_and_everybody_else_is_a_probe() -> None:
    group = enroll(people(), 3, seed=1)
    assert group.gallery is not None
    enrolled = {group.names[place][0] for place in group.gallery}
    assert len(enrolled) == len(group.gallery) == 3
    assert {pair.probe for pair in group.pairs} == {f"{p}{i}" for p in set(LEVELS) - enrolled for i in (0, 1)}
    assert not any(pair.genuine for pair in group.pairs)
    assert [group.names[place] for place in group.index[:, 0]] == [pair.probe for pair in group.pairs]


def test_the_nearest_of_the_enrolled_is_aimed_at_and_any_of_them_counts() -> None:
    group = replace(enroll(people(), 2, seed=0), gallery=np.array([0, 8]))  # a and e
    values = brightness(group)
    for row, place in enumerate(aim(group, values, "euclidean").index[:, 1]):
        level = LEVELS[group.pairs[row].probe[0]]
        assert place == (0 if level - 40 < 240 - level else 8)
    rows = np.arange(len(group.pairs))
    moved = np.full((len(rows), 1), 235 / 255, np.float32)
    d = reference_distances(group, rows, values, moved, partial(distances, "euclidean"))
    np.testing.assert_allclose(d, 5 / 255, atol=1e-6)
    plain = people()
    assert aim(plain, values, "euclidean") is plain


def test_what_is_no_group_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        enroll(people(), 1, 0)
    with pytest.raises(InsufficientError, match="needs more than 5 people"):
        enroll(people(), 5, 0)
    with pytest.raises(UsageError, match="needs named people"):
        enroll(people(named=False), 2, 0)


def test_an_audit_of_a_group(tmp_path: Path) -> None:
    bright = np.full((SIDE * SIDE * 3, 1), 1 / (SIDE * SIDE * 3))
    manifest = read_manifest(write_linear(tmp_path, weights=bright, side=SIDE, threshold=0.1))
    group = replace(enroll(people(), 2, seed=0), gallery=np.array([0, 8]))
    request = Request(
        manifest, group, "people", (DeepFool(),), (find_profile("none"), find_profile("mean3")), ("zero", "perfect"), 0,
        Execution("cpu", threads=1),
    )  # fmt: skip
    assessment = run_audit(request, tmp_path / "run", Silent())
    text = to_json(assessment)
    jsonschema.validate(json.loads(text), report_schema())
    assert assessment.group == 2
    assert {s.goal for s in assessment.scenarios} == {"group"}
    # A mean filter leaves gray gray: everybody comes to the nearest enrolled gray, in float and in 8 bits.
    assert all(s.asr.value == 1 for s in assessment.scenarios)
    assert not any("dodging" in caveat for caveat in assessment.caveats)
    assert "matches an enrolled person" in assessment.worst
    write_bytes(tmp_path / "run" / "report.json", text.encode())
    assert read_run(tmp_path / "run").outcomes
    write_record(request, tmp_path / "run", tmp_path, "linear", ["none", "mean3"])
    with pytest.raises(InputError, match="probes of a group"):
        read_record(tmp_path / "run")
    other = replace(request, crops=replace(group, gallery=np.array([0, 9])))
    assert run_name(other) != run_name(request)
