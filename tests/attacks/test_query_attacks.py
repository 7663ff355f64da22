"""Attacks that see only the runtime: budgets, bounds, batches, starts and known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.attacks.linear import (
    Counting,
    bordering,
    check_batches,
    check_count,
    check_probes,
    found,
    part,
    smallest,
    with_start,
)
from tests.attacks.test_attacks import distance_to_boundary, linear_task
from tests.models import Linear
from toolkit.attacks import (
    blended,
    boundary,
    cgba,
    contrast,
    evolutionary,
    hop_skip_jump,
    nes,
    salt_pepper,
    simba,
    sparse_rs,
    square,
)
from toolkit.attacks.base import Attack, Task
from toolkit.attacks.norms import Norm, sizes
from toolkit.attacks.resampling import cosines
from toolkit.attacks.square import _bump, _move_l2
from toolkit.errors import InputError
from toolkit.pixels import to_8bit, to_unit

LADDERS = (salt_pepper.ATTACK, blended.ATTACK, contrast.ATTACK)
SQUARE_L2 = replace(square.ATTACK, name="square-l2", norm="l2", epsilon=0.5)
SPARSE = replace(sparse_rs.ATTACK, pixels=20)
SCORES = (square.ATTACK, SQUARE_L2, simba.ATTACK, replace(simba.ATTACK, basis="pixel"), SPARSE, nes.ATTACK)
DECISIONS = (hop_skip_jump.ATTACK, cgba.ATTACK, boundary.ATTACK, evolutionary.ATTACK)


def named(attack: object) -> str:
    return str(getattr(attack, "name", "")) + str(getattr(attack, "basis", ""))


@pytest.mark.parametrize("attack", LADDERS, ids=named)
def test_a_ladder_ends_at_its_first_success(attack: Attack) -> None:
    model, task = linear_task(8)
    crafted = check_probes(attack, model, task)
    assert crafted.success8[task.dodging].any()
    np.testing.assert_array_equal(crafted.probes, to_unit(crafted.probes8))
    assert (crafted.evaluations[~crafted.success] == attack.levels).all()  # type: ignore[attr-defined]
    check_batches(attack)
    check_count(attack, 50)


def test_contrast_stops_at_the_share_that_a_formula_gives() -> None:
    model, task = linear_task(8)
    attack = contrast.Contrast(levels=200)
    crafted = attack.craft(model, task)
    gray = model.embed(np.full_like(task.probes, 0.5))[:, 0]
    clean, reference = model.embed(task.probes)[:, 0], task.references[:, 0]
    for i in np.flatnonzero(crafted.success & task.dodging):
        shares = np.arange(1, 201) / 200
        there = np.abs(clean[i] + shares * (gray[i] - clean[i]) - reference[i]) >= 1
        share = shares[there.argmax()]
        moved = np.linalg.norm(to_unit(crafted.probes8[i]) - task.probes[i])
        # Rounding to 8 bits can make the difference of a rung or two on the way there.
        assert moved == pytest.approx(share * np.linalg.norm(0.5 - task.probes[i]), rel=0.1)


def test_salt_and_pepper_turns_whole_pixels() -> None:
    model, task = linear_task(8)
    crafted = salt_pepper.ATTACK.craft(model, task)
    changed = crafted.probes8 != to_8bit(task.probes)
    assert changed.any()
    np.testing.assert_array_equal(changed.all(axis=3), changed.any(axis=3))
    assert np.isin(crafted.probes8[changed], (0, 255)).all()


@pytest.mark.parametrize("attack", [*SCORES, *DECISIONS], ids=named)
@pytest.mark.parametrize("budget", [1, 60, 200])
def test_the_budget_is_kept(attack: Attack, budget: int) -> None:
    started = attack in DECISIONS
    check_count(replace(attack, budget=budget), budget, started=started)  # type: ignore[type-var]


@pytest.mark.parametrize("attack", [*SCORES, *DECISIONS], ids=named)
def test_results_do_not_depend_on_the_batch(attack: Attack) -> None:
    check_batches(replace(attack, budget=250), started=attack in DECISIONS)  # type: ignore[type-var]


@pytest.mark.parametrize("attack", SCORES, ids=named)
def test_scores_lead_to_the_goal(attack: Attack) -> None:
    model, task = linear_task(8)
    crafted = check_probes(attack, model, task)
    assert crafted.success.all()
    assert crafted.success8.all()
    crafted = check_probes(attack, model, bordering(task))
    assert crafted.success.any()


@pytest.mark.parametrize("attack", [square.ATTACK, SQUARE_L2, nes.ATTACK], ids=named)
def test_bounds_hold_and_are_needed(attack: square.Square) -> None:
    norm: Norm = getattr(attack, "norm", "linf")
    model, task = linear_task()
    minimum = smallest(model, task, norm).max()
    for share in (0.9, 3.0):
        bound = float(share * minimum)
        if norm == "linf":
            # Whole levels, so that 8 bits can hold the bound; the weights are such that one is enough.
            bound = np.ceil(bound * 255) / 255 if share > 1 else 0.4 / 255
        model, task = linear_task()
        crafted = check_probes(replace(attack, epsilon=bound), model, task)
        assert (found(task, crafted, norm) <= bound * (1 + 1e-4)).all()
        if share < 1 and bound < minimum:
            assert not crafted.success.any()
        if share > 1:
            assert crafted.success.mean() >= 0.5


def test_simba_moves_by_orthonormal_vectors() -> None:
    np.testing.assert_allclose(cosines(12) @ cosines(12).T, np.eye(12), atol=1e-6)
    attack = simba.Simba(basis="pixel", step=51 / 255, budget=9)
    model, task = linear_task(4)
    # Ten times as far: nothing is solved, and every vector is one value moved by 51 levels.
    task = replace(task, references=task.references * 100)
    model, probes = Counting(model.weights, model.decision), task.probes
    crafted = attack.craft(model, task)
    changed = to_8bit(crafted.probes).astype(int) - to_8bit(probes)
    assert set(np.unique(np.abs(changed))) <= {0, 51}
    assert (np.count_nonzero(changed, axis=(1, 2, 3)) <= 8).all()


def fewest_pixels(model: Linear, task: Task) -> np.ndarray:
    """The closed form: the most that each pixel can move the distance toward the goal, the largest first."""
    away = np.sign(model.embed(task.probes) - task.references)[:, 0] * np.where(task.dodging, 1, -1)
    slope = away[:, None, None, None] * model.weights.reshape(task.probes.shape[1:])
    gain = np.maximum(slope * -task.probes, slope * (1 - task.probes)).sum(axis=3).reshape(len(task), -1)
    reach = np.cumsum(-np.sort(-gain, axis=1), axis=1)
    return 1 + np.argmax(reach >= distance_to_boundary(task)[:, None], axis=1)


def test_sparse_rs_needs_about_as_many_pixels_as_the_closed_form() -> None:
    strong, task = linear_task(8)
    model = Linear(strong.weights / 20, strong.decision)
    task = replace(task, references=model.embed(task.probes) + task.references - strong.embed(task.probes))
    fewest = fewest_pixels(model, task)
    assert fewest.min() > 5
    attack = replace(sparse_rs.ATTACK, budget=4000)
    assert not replace(attack, pixels=int(fewest.min()) - 1).craft(model, task).success.any()
    task = replace(task, generators=linear_task(8)[1].generators)
    assert check_probes(replace(attack, pixels=int(1.25 * fewest.max())), model, task).success.all()


def test_sparse_rs_leaves_all_other_pixels_as_they_are() -> None:
    model, task = linear_task(8)
    attack = replace(sparse_rs.ATTACK, pixels=3)
    crafted = attack.craft(model, task)
    assert crafted.success8.any()
    np.testing.assert_array_equal(crafted.probes, to_unit(crafted.probes8))
    changed = (crafted.probes8 != to_8bit(task.probes)).any(axis=3)
    assert np.isin(crafted.probes8[changed], (0, 255)).all()
    # The task has no value at the ends of the range, so that every chosen pixel shows.
    assert (changed.sum(axis=(1, 2))[crafted.success8] == 3).all()
    with pytest.raises(InputError, match=r"sparse-rs.pixels=144: a crop has 144 pixels"):
        replace(attack, pixels=144).craft(model, task)


def test_square_bumps_have_unit_norm_and_moves_keep_the_ball_full() -> None:
    rng = np.random.default_rng(0)
    for side in (1, 2, 3, 6, 7):
        bump = _bump(rng, side)
        assert bump.shape == (side, side)
        assert np.linalg.norm(bump) == pytest.approx(1, rel=1e-5)
    delta = rng.normal(size=(12, 12, 3)).astype(np.float32)
    delta *= 0.5 / np.linalg.norm(delta)
    for _ in range(20):
        delta = _move_l2(rng, delta, 0.7, 3)
        assert np.linalg.norm(delta) == pytest.approx(0.7, rel=1e-4)


@pytest.mark.parametrize("attack", DECISIONS, ids=named)
def test_without_a_start_only_dodging_begins(attack: Attack) -> None:
    model, task = linear_task(8, wide=True)
    crafted = check_probes(attack, model, task)
    np.testing.assert_array_equal(crafted.success, task.dodging)
    assert (crafted.evaluations[~task.dodging] == 0).all()
    model, task = linear_task(8, wide=True)
    crafted = check_probes(attack, model, with_start(model, task))
    assert crafted.success.all()
    assert crafted.success8.all()


@pytest.mark.parametrize(
    "attack", [replace(hop_skip_jump.ATTACK, budget=3000), replace(cgba.ATTACK, budget=3000, frequencies=1)], ids=named
)
def test_boundary_normals_lead_near_the_closed_form(attack: Attack) -> None:
    model, task = linear_task()
    crafted = attack.craft(model, with_start(model, task))
    ratio = found(task, crafted, "l2") / smallest(model, task, "l2")
    assert (ratio > 0.999).all()
    # Without a goal-directed start the first blend is many times as far.
    assert np.median(ratio) < 1.5
    noisy = attack.craft(model, linear_task()[1])
    dodging = noisy.success
    assert np.median(found(task, noisy, "l2")[dodging] / smallest(model, task, "l2")[dodging]) < 3


def test_cgba_comes_near_the_closed_form_of_its_subspace() -> None:
    """It leaves the plane of its start by low frequencies alone."""
    model, task = linear_task()
    first = [np.random.default_rng([5, i]).random(task.probes.shape[1:], dtype=np.float32) for i in range(len(task))]
    crafted = replace(cgba.ATTACK, budget=2000).craft(model, task)
    low = cosines(task.probes.shape[1])[:3]
    smooth = np.einsum("ah,bw,cd->abchwd", low, low, np.eye(3)).reshape(27, -1)
    for i in np.flatnonzero(task.dodging):
        away = first[i] - task.probes[i]
        basis = np.linalg.svd(np.vstack([smooth, away.reshape(1, -1)]), full_matrices=False)[2]
        moved = (crafted.probes[i] - task.probes[i]).ravel()
        # The reference is 0.25 above the probe, and the boundaries are 1 below and above the reference.
        gap = 0.75 if moved @ model.weights < 0 else 1.25
        least = gap / np.linalg.norm(basis @ model.weights)
        np.testing.assert_allclose(moved - moved @ basis.T @ basis, 0, atol=1e-5)
        assert 0.999 * least < np.linalg.norm(moved) < 1.1 * least


@pytest.mark.parametrize("attack", [boundary.ATTACK, evolutionary.ATTACK], ids=named)
def test_a_walk_comes_nearer_with_more_queries(attack: Attack) -> None:
    model, _ = linear_task()
    norms = []
    for budget in (100, 500, 2000):
        task = linear_task()[1]
        crafted = replace(attack, budget=budget).craft(model, task)  # type: ignore[type-var]
        norms.append(np.median(found(task, crafted, "l2")[task.dodging]))
    assert norms[0] > norms[1] > norms[2]
    assert norms[2] < 0.5 * norms[0]


def test_the_boundary_attack_steps_around_at_the_same_distance_and_comes_near_the_closed_form() -> None:
    model, task = linear_task()
    start = np.random.default_rng(0).random(task.probes.shape, dtype=np.float32)
    everyone = np.arange(len(task))
    turned = boundary.ATTACK._turn(task, everyone, start, np.full(len(task), 0.3))
    away, before = turned - task.probes, start - task.probes
    np.testing.assert_allclose(sizes("l2", away), sizes("l2", before), rtol=1e-4)
    cosine = (away * before).sum(axis=(1, 2, 3)) / np.square(before).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(cosine, 1 / np.sqrt(1 + 0.3**2), rtol=1e-4)
    model, task = linear_task()
    crafted = replace(boundary.ATTACK, budget=20_000).craft(model, with_start(model, task))
    assert np.median(found(task, crafted, "l2") / smallest(model, task, "l2")) < 1.5


@pytest.mark.parametrize("attack", DECISIONS, ids=named)
def test_decisions_are_all_that_is_seen(attack: Attack) -> None:
    """Distances of 0.5 and 1.5, in place of all below 1 and all others, change nothing."""

    class Squashed(Linear):
        def embed(self, crops):  # type: ignore[no-untyped-def]
            far = np.abs(super().embed(crops) - reference) >= 1
            return (reference + np.where(far, 1.5, 0.5)).astype(np.float32)

    attack = replace(attack, budget=200)  # type: ignore[type-var]
    for i in range(4):
        model, task = linear_task(4)
        task = with_start(model, task)
        reference = task.references[i]
        seen = [attack.craft(m, part(task, [i])) for m in (model, Squashed(model.weights, model.decision))]
        np.testing.assert_array_equal(seen[0].probes, seen[1].probes)
        np.testing.assert_array_equal(seen[0].probes8, seen[1].probes8)
