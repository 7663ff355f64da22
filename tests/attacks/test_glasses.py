"""A printed pair of glasses: where it lies, what colors it has, and whether it does what random colors do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.attacks.linear import Counting
from tests.attacks.test_attacks import FACE, linear_task
from toolkit.attacks.base import Task, margins, reached, to_unit
from toolkit.attacks.glasses import LEVELS, Glasses, glasses_mask
from toolkit.audit.craft import make_task
from toolkit.audit.replay import run_clean
from toolkit.errors import InputError
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.white_box import WhiteBox


def worn(rows: list[int] | None = None) -> tuple[Counting, Task]:
    """Linear pairs with a face, or some of them."""
    model, task = linear_task(16, wide=True)
    rows = list(range(16)) if rows is None else rows
    some = Task(
        task.probes[rows],
        task.references[rows],
        task.dodging[rows],
        task.decision,
        tuple(np.random.default_rng([5, i]) for i in rows),
        landmarks=FACE,
    )
    return Counting(model.weights, model.decision), some


def check_worn(task: Task, probes: np.ndarray, success: np.ndarray) -> None:
    """Unchanged outside of the frame, and printable in it."""
    _, height, width, _ = probes.shape
    mask = glasses_mask(task.landmarks, height, width)  # type: ignore[arg-type]
    np.testing.assert_array_equal(probes[:, ~mask], task.probes[:, ~mask])
    np.testing.assert_array_equal(probes[~success], task.probes[~success])
    assert np.isin(probes[success][:, mask], LEVELS).all()


def test_only_the_frame_changes_and_only_to_printable_colors() -> None:
    model, task = worn()
    crafted = Glasses().craft(model, task)
    assert crafted.success.any()
    check_worn(task, crafted.probes, crafted.success)
    check_worn(task, to_unit(crafted.probes8), crafted.success)
    assert crafted.evaluations.sum() == sum(model.images)
    d = np.linalg.norm(model.embed(to_unit(crafted.probes8)) - task.references, axis=1)
    assert np.where(task.dodging, d >= 1, d < 1)[crafted.success8].all()


def test_a_pair_does_not_depend_on_its_batch() -> None:
    model, task = worn()
    whole = Glasses().craft(model, task)
    for rows in ([3], [14, 2, 5]):
        crafted = Glasses().craft(*worn(rows))
        np.testing.assert_array_equal(crafted.probes8, whole.probes8[rows])
        np.testing.assert_array_equal(crafted.evaluations, whole.evaluations[rows])


def test_a_crop_without_landmarks_is_refused() -> None:
    model, task = worn()
    with pytest.raises(InputError, match=r"\[alignment\]"):
        Glasses().craft(model, replace(task, landmarks=None))


@pytest.mark.parametrize("name", ["facenet-mini", "dlib-resnet"])
def test_the_frame_is_about_as_large_as_the_papers(name: str) -> None:
    manifest = find_manifest(name)
    assert manifest.alignment is not None
    points = np.array(manifest.alignment.template)
    mask = glasses_mask(points, manifest.input.height, manifest.input.width)
    # 6.5 % in Sharif et al. 2016, on crops of the face alone.
    assert 0.04 < mask.mean() < 0.09
    for x, y in points[:2].astype(int):
        assert not mask[y, x], "one sees through them"
        assert mask[y, x - 30 : x].any()
        assert mask[y, x : x + 30].any()


def test_glasses_fool_a_real_verifier_where_random_colors_do_not() -> None:
    manifest = find_manifest("facenet-mini")
    assert manifest.alignment is not None
    crops = crop_pairs(load_pairs(embedded_pairs(), limit=12), 160, 160, manifest.alignment.template)
    runtime = RuntimeVerifier(manifest, execution=Execution("cpu", threads=1))
    clean = run_clean(runtime, crops, manifest.decision)
    rows = np.flatnonzero(clean.eligible)
    task = make_task("glasses", crops, rows, clean.embeddings[crops.index[rows, 1]], manifest.decision, 0, np.inf)
    model = WhiteBox(runtime, TensorFlowVerifier(manifest))
    crafted = Glasses().craft(model, task)
    check_worn(task, to_unit(crafted.probes8), crafted.success)
    mask = glasses_mask(task.landmarks, 160, 160)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    by_chance = np.zeros(len(task), np.bool_)
    for _ in range(5):
        painted = task.probes.copy()
        painted[:, mask] = rng.choice(LEVELS, (len(task), int(mask.sum()), 3))
        by_chance |= reached(task, np.arange(len(task)), margins(model, task, np.arange(len(task)), painted))
    assert crafted.success8[task.dodging].all()
    assert crafted.success8.sum() >= by_chance.sum() + 3
