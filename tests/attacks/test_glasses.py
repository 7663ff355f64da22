"""A printed pair of glasses: where it lies, what colors it has, and whether it does what random colors do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.attacks.linear import Counting
from tests.attacks.test_attacks import FACE, linear_task
from toolkit.attacks.base import Task, margins, reached
from toolkit.attacks.glasses import LEVELS, Glasses, glasses_mask
from toolkit.attacks.settings import apply_settings
from toolkit.audit.clean.run import run_clean
from toolkit.audit.crafting.craft import attack_parameters, attack_with, make_task
from toolkit.errors import InputError
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
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


def picture(path: Path, pixels: np.ndarray) -> Path:
    cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., ::-1]))
    return path


def test_a_mask_and_a_palette_of_ones_own(tmp_path: Path) -> None:
    model, task = worn()
    _, height, width, _ = task.probes.shape
    drawn = np.zeros((height, width, 3), np.uint8)
    drawn[height // 2 :] = 255
    colors = np.array([[[10, 20, 30], [240, 200, 250], [200, 20, 90], [20, 210, 60]]], np.uint8)
    attack = Glasses(mask=picture(tmp_path / "m.png", drawn), palette=picture(tmp_path / "p.png", colors))
    crafted = attack.craft(model, replace(task, landmarks=None))
    assert crafted.success.any()
    np.testing.assert_array_equal(crafted.probes[:, : height // 2], task.probes[:, : height // 2])
    shown = np.unique(crafted.probes8[crafted.success8][:, height // 2 :].reshape(-1, 3), axis=0)
    assert {tuple(color) for color in shown.tolist()} <= {tuple(color) for color in colors[0].tolist()}


def test_a_mask_that_does_not_fit_and_a_photograph_as_palette_are_refused(tmp_path: Path) -> None:
    model, task = worn()
    _, height, width, _ = task.probes.shape
    rng = np.random.default_rng(0)
    for attack, message in (
        (Glasses(mask=picture(tmp_path / "l.png", np.full((height, width + 1, 3), 255, np.uint8))), "crops are"),
        (Glasses(mask=picture(tmp_path / "d.png", np.zeros((height, width, 3), np.uint8))), "has no bright pixel"),
        (Glasses(palette=picture(tmp_path / "n.png", rng.integers(0, 256, (99, 99, 3), np.uint8))), "at most"),
    ):
        with pytest.raises(InputError, match=message):
            attack.craft(model, task)


def test_a_changed_mask_is_another_attack_and_is_not_replayed(tmp_path: Path) -> None:
    mask = picture(tmp_path / "m.png", np.full((8, 8, 3), 255, np.uint8))
    (attack,) = apply_settings((Glasses(),), [f"glasses.mask={mask}"])
    before = attack_parameters(attack)
    assert attack_with("glasses", json.loads(json.dumps(before))) == attack
    picture(mask, np.zeros((8, 8, 3), np.uint8))
    assert attack_parameters(attack) != before
    with pytest.raises(InputError, match="sha256"):
        attack_with("glasses", json.loads(json.dumps(before)))


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


def test_glasses_fool_a_real_verifier_where_random_colors_do_not(facenet_mini: TensorFlowVerifier) -> None:
    manifest = find_manifest("facenet-mini")
    assert manifest.alignment is not None
    crops = crop_pairs(load_pairs(embedded_pairs(), limit=8), 160, 160, manifest.alignment.template)
    runtime = RuntimeVerifier(manifest, execution=Execution("cpu", threads=1))
    clean = run_clean(runtime, crops, manifest.decision)
    rows = np.flatnonzero(clean.eligible)
    task = make_task("glasses", crops, rows, clean.embeddings[crops.index[rows, 1]], manifest.decision, 0, np.inf)
    model = WhiteBox(runtime, facenet_mini)
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
