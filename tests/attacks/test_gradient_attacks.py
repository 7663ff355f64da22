"""Gradient attacks on the linear verifier: closed-form minima, norm bounds, batches and counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.attacks.linear import (
    bordering,
    check_batches,
    check_count,
    check_probes,
    faint,
    fewest,
    found,
    smallest,
)
from tests.attacks.test_attacks import linear_task
from tests.models import Linear
from toolkit.attacks import (
    apgd,
    apgd_l2,
    bsr,
    carlini_wagner,
    ddn,
    deepfool,
    deepfool_linf,
    fmn,
    fmn_l1,
    fmn_linf,
    momentum,
    momentum_l2,
    pgd,
    pgd_l2,
    sigma_zero,
)
from toolkit.attacks.apgd import checkpoints
from toolkit.attacks.base import Attack, margins
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.norms import Convex, Norm, sizes
from toolkit.attacks.resampling import apply
from toolkit.attacks.warping import bilinear, warp
from toolkit.errors import InputError
from toolkit.pixels import to_unit

MINIMAL = (
    (deepfool.ATTACK, "l2", 1.03),
    (deepfool_linf.ATTACK, "linf", 1.021),
    (carlini_wagner.ATTACK, "l2", 1.05),
    (carlini_wagner.CarliniWagner(steps=200), "l2", 1.025),
    (fmn.ATTACK, "l2", 1.001),
    (fmn_linf.ATTACK, "linf", 1.001),
    (fmn_l1.ATTACK, "l1", 1.001),
    (ddn.ATTACK, "l2", 1.03),
)
BOUNDED = (pgd.ATTACK, pgd_l2.ATTACK, apgd.ATTACK, replace(apgd_l2.ATTACK, epsilon=0.5))
TRANSFERRED = (momentum.ATTACK, momentum_l2.ATTACK, bsr.ATTACK)
EVERY = (*(a for a, _, _ in MINIMAL), sigma_zero.ATTACK, *BOUNDED, *TRANSFERRED)


def named(attack: object) -> str:
    return str(getattr(attack, "name", ""))


@pytest.mark.parametrize(("attack", "norm", "within"), MINIMAL, ids=named)
def test_the_smallest_perturbation_is_the_closed_form(attack: Attack, norm: Convex, within: float) -> None:
    model, task = linear_task()
    crafted = check_probes(attack, model, task)
    assert crafted.success.all()
    ratio = found(task, crafted, norm) / smallest(model, task, norm)
    assert (ratio > 0.999).all()
    assert (ratio < within).all()


def test_sigma_zero_changes_hardly_more_pixels_than_the_closed_form() -> None:
    model, task = faint(0.02)
    crafted, exact = check_probes(sigma_zero.ATTACK, model, task), fewest(model, task)
    assert crafted.success8.all()
    assert (exact >= 18).all()
    for deltas in (crafted.probes - task.probes, to_unit(crafted.probes8) - task.probes):
        changed = sizes("l0", deltas)
        assert (exact <= changed).all()
        assert (changed <= 1.15 * exact).all()


def test_sigma_zero_weighs_a_pixel_and_not_its_values() -> None:
    """One pixel with three weak channels is enough, where it takes two pixels with one strong channel."""
    model, task = linear_task(2)
    weights = np.zeros((12, 12, 3))
    weights[..., 0] = 1.0
    weights[5, 7] = 0.9
    model = Linear(weights.reshape(-1, 1), model.decision)
    task = replace(task, references=model.embed(task.probes) + np.float32(0.25), dodging=np.ones(2, np.bool_))
    crafted = check_probes(sigma_zero.ATTACK, model, task)
    assert crafted.success8.all()
    changed = (crafted.probes != task.probes).any(axis=3)
    assert (changed.sum(axis=(1, 2)) == 1).all()
    assert changed[:, 5, 7].all()


@pytest.mark.parametrize("attack", BOUNDED, ids=named)
@pytest.mark.parametrize("restarts", [1, 3])
def test_a_ball_is_exhausted_just_where_the_closed_form_says(attack: pgd.Pgd, restarts: int) -> None:
    model, task = linear_task()
    exact = smallest(model, task, attack.norm)
    for dodging in (True, False):
        minimum = exact[task.dodging == dodging].max()
        for share in (0.99, 1.01):
            epsilon = float(share * minimum)
            chosen = {"step": epsilon / 4} if isinstance(attack, pgd.Pgd) else {}
            tight = replace(attack, epsilon=epsilon, restarts=restarts, **chosen)
            model, task = linear_task()
            crafted = check_probes(tight, model, task)
            assert (crafted.success[task.dodging == dodging] == (share > 1)).all()
            assert (found(task, crafted, attack.norm) <= epsilon * (1 + 1e-4)).all()


@pytest.mark.parametrize("attack", [*BOUNDED, *TRANSFERRED], ids=named)
def test_both_probes_stay_in_the_ball(attack: pgd.Pgd) -> None:
    norm: Norm = getattr(attack, "norm", "linf")
    for epsilon in (2 / 255, 8 / 255, 0.5 / 255):
        bound = epsilon * (10 if norm == "l2" else 1)
        model, task = linear_task(6, wide=True)
        crafted = check_probes(replace(attack, epsilon=bound), model, task)
        assert (found(task, crafted, norm) <= bound * (1 + 1e-4)).all()
        assert (sizes(norm, to_unit(crafted.probes8) - task.probes) <= bound * (1 + 1e-4)).all()


def test_an_attacker_who_does_not_know_the_profile_spends_the_budget() -> None:
    """On a linear verifier the largest margin in a ball is its closed form; the first success lies much nearer."""
    model, task = linear_task()
    epsilon = 3 * float(smallest(model, task, "l2").max())
    far = replace(momentum_l2.ATTACK, epsilon=epsilon, kernel=1, diversity=0.0)
    # Impersonation has its largest margin at the reference, which is inside the ball.
    rows = np.flatnonzero(task.dodging)
    reached = {a.name: margins(model, task, rows, a.craft(model, task).probes[rows]) for a in (far, fmn.ATTACK)}
    gradient = model.distances_and_gradients(task.probes, task.references)[1]
    end = (task.probes + np.float32(epsilon) * gradient / sizes("l2", gradient)[:, None, None, None])[rows]
    best = margins(model, task, rows, np.clip(end, 0, 1).astype(np.float32))
    assert (reached["momentum-l2"] > 0.97 * best).all()
    assert (reached["fmn"] < 0.1 * best).all()
    assert far.craft(model, task).success[rows].all()


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_batches_and_counts(attack: Attack) -> None:
    check_batches(attack)
    check_count(attack)


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_probes_at_the_ends_of_the_range_stay_images(attack: Attack) -> None:
    model, task = linear_task(6, wide=True)
    task = bordering(task)
    references = model.embed(task.probes) + np.where(task.dodging, 0.25, 2.0)[:, None] * np.eye(3)[0]
    crafted = check_probes(attack, model, replace(task, references=references.astype(np.float32)))
    assert crafted.success.any()


class Masked(Linear):
    """A verifier whose gradient is the same everywhere."""

    fill = 0.0

    def distances_and_gradients(self, crops, references):  # type: ignore[no-untyped-def]
        d, g = super().distances_and_gradients(crops, references)
        return d, np.full_like(g, self.fill)


class Poisoned(Masked):
    fill = float("nan")


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_no_gradient_is_a_failure_and_nan_is_refused(attack: Attack) -> None:
    model, task = linear_task()
    crafted = attack.craft(Masked(model.weights, model.decision), task)
    assert not crafted.success.any()
    np.testing.assert_array_equal(crafted.probes, task.probes)
    with pytest.raises(InputError, match="NaN"):
        attack.craft(Poisoned(model.weights, model.decision), task)


def test_a_random_restart_leaves_a_flat_start() -> None:
    model, task = linear_task()

    class FlatAtFirst(Linear):
        """No gradient at the clean probes."""

        def distances_and_gradients(self, crops, references):  # type: ignore[no-untyped-def]
            d, g = super().distances_and_gradients(crops, references)
            clean = (crops[:, None] == task.probes[None]).all(axis=(2, 3, 4)).any(axis=1)
            return d, np.where(clean[:, None, None, None], 0, g)

    flat = FlatAtFirst(model.weights, model.decision)
    for attack in BOUNDED:
        epsilon = 1.5 * float(smallest(model, task, attack.norm).max())
        chosen = {"step": epsilon / 4} if isinstance(attack, pgd.Pgd) else {}
        small = replace(attack, epsilon=epsilon, **chosen)
        assert not small.craft(flat, task).success.any()
        assert replace(small, restarts=2).craft(flat, task).success.all()


def test_solved_pairs_leave_the_batch() -> None:
    model, task = linear_task()
    for attack in (pgd.ATTACK, apgd.ATTACK):
        # Steps of a quarter of 8/255 and more are each as long as the whole way: start, step, and two to round.
        assert attack.craft(model, task).evaluations[task.dodging].max() == 4


def test_checkpoints_are_those_of_the_paper() -> None:
    # Section 3.2 with 100 steps: 0.22, then gaps 0.03 shorter each, but no shorter than 0.06.
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]


def test_apgd_halves_the_steps_of_pairs_that_do_not_get_on() -> None:
    def images(value: float) -> np.ndarray:
        return np.full((4, 1, 1, 3), value, np.float32)

    climb = apgd._Climb(
        x=images(1), before=images(2), best=images(3), gradient=images(4), best_gradient=images(5),
        margin=np.zeros(4), highest=np.array([1.0, 1.0, 2.0, 1.0]), length=np.ones(4),
        rises=np.array([3, 9, 9, 9]), highest_then=np.ones(4),
        shortened_then=np.array([False, False, False, True]),
    )  # fmt: skip
    climb.shorten(np.arange(4), 7.5)
    # Too few rises; no new maximum; a new maximum; none, but the step is new.
    halved = np.array([True, True, False, False])
    np.testing.assert_array_equal(climb.length, np.where(halved, 0.5, 1))
    np.testing.assert_array_equal(climb.x[:, 0, 0, 0], np.where(halved, 3, 1))
    np.testing.assert_array_equal(climb.before[:, 0, 0, 0], np.where(halved, 3, 2))
    np.testing.assert_array_equal(climb.gradient[:, 0, 0, 0], np.where(halved, 5, 4))
    np.testing.assert_array_equal(climb.shortened_then, halved)
    assert (climb.rises == 0).all()
    np.testing.assert_array_equal(climb.highest_then, climb.highest)


def test_momentum_takes_all_of_its_steps_and_fills_the_ball() -> None:
    model, task = linear_task()
    for kernel, diversity in ((1, 0.0), (7, 1.0)):
        attack = replace(momentum.ATTACK, kernel=kernel, diversity=diversity)
        crafted = attack.craft(model, task)
        # Whoever must come near the reference may end beyond it: all steps are taken.
        assert crafted.success[task.dodging].all()
        assert (crafted.evaluations == attack.steps + 1 + crafted.success).all()
        far = found(task, crafted, "linf")[task.dodging]
        np.testing.assert_allclose(far, attack.epsilon, rtol=1e-4)
    # Without blur and views it is the sign method: all of the way in one direction.
    plain = replace(momentum.ATTACK, kernel=1, diversity=0.0).craft(model, linear_task()[1])
    step = (plain.probes - task.probes)[task.dodging] / np.float32(attack.epsilon)
    np.testing.assert_allclose(np.abs(step), 1, atol=1e-4)


def test_views_of_the_momentum_attack_are_shrunk_shifted_images() -> None:
    _, task = linear_task(8)
    down, across = replace(momentum.ATTACK, diversity=1.0)._views(task, np.arange(8), 12, 12)
    views = apply(down, across, np.ones_like(task.probes))
    for view in views:
        shown = view > 0.5
        rows, columns = shown.any(axis=(1, 2)), shown.any(axis=(0, 2))
        assert 0.9 * 12 - 0.5 <= rows.sum() == columns.sum() <= 12
        np.testing.assert_allclose(view[shown], 1, atol=1e-6)
        assert view.sum() == pytest.approx(shown.sum(), abs=1e-4)


def test_block_shuffle_and_rotation_takes_all_of_its_steps_and_fills_the_ball() -> None:
    model, task = linear_task()
    attack = replace(bsr.ATTACK, blocks=1, angle=0.0, copies=3)
    crafted = attack.craft(model, task)
    assert crafted.success[task.dodging].all()
    assert (crafted.evaluations == 3 * attack.steps + 1 + crafted.success).all()
    # One block that does not turn is the image itself: the sign method goes all of the way in one direction.
    step = (crafted.probes - task.probes)[task.dodging] / np.float32(attack.epsilon)
    np.testing.assert_allclose(np.abs(step), 1, atol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_blocks_change_places_and_lose_no_pixel(blocks: int) -> None:
    image = np.arange(12 * 10 * 3, dtype=np.float32).reshape(12, 10, 3)
    shuffled = set()
    for seed in range(8):
        view = replace(bsr.ATTACK, blocks=blocks, angle=0.0)._view(np.random.default_rng(seed), 12, 10)
        moved = warp(view, image, 12, 10)
        np.testing.assert_array_equal(np.sort(moved.ravel()), image.ravel())
        shuffled.add(moved.tobytes())
    assert len(shuffled) == 1 if blocks == 1 else len(shuffled) > 4


def test_a_turned_block_is_the_image_turned_about_its_center_with_black_corners() -> None:
    image = np.random.default_rng(0).random((9, 9, 3), np.float32)
    turned = {}
    for seed in range(20):
        view = replace(bsr.ATTACK, blocks=1, angle=180.0)._view(np.random.default_rng(seed), 9, 9)
        out = warp(view, image, 9, 9)
        np.testing.assert_allclose(out[4, 4], image[4, 4], atol=1e-6)
        assert out.max() <= image.max() + 1e-6
        turned[seed] = out
    assert any((out[[0, 0, 8, 8], [0, 8, 0, 8]] == 0).all() for out in turned.values())
    # The matrix transposed maps gradients back: <Vx, y> = <x, V'y>.
    other = np.random.default_rng(1).random((9, 9, 3), np.float32)
    assert np.vdot(warp(view, image, 9, 9), other) == pytest.approx(np.vdot(image, warp(view.T, other, 9, 9)), rel=1e-4)


def test_carlini_wagner_needs_no_more_than_its_steps() -> None:
    model, task = linear_task()
    crafted = carlini_wagner.CarliniWagner(searches=2, steps=10).craft(model, task)
    assert (crafted.evaluations <= 20 + 51).all()
    assert crafted.success.all()


@pytest.mark.parametrize("rung", [0, 1, 3, 4, 17, 99])
def test_a_linear_ladder_of_fgsm_ends_at_its_first_rung_that_succeeds(rung: int) -> None:
    model, task = linear_task()
    task = replace(task, dodging=np.ones(len(task), np.bool_), references=model.embed(task.probes) + np.float32(0.25))
    # The boundary is in the middle between this rung and the one before.
    step = float(smallest(model, task, "linf")[0]) / (rung + 0.5)
    crafted = Fgsm(100, step, 100 * step, "linear").craft(model, task)
    np.testing.assert_allclose(found(task, crafted, "linf"), (rung + 1) * step, rtol=1e-3)


@pytest.mark.parametrize("attack", [*EVERY, Fgsm()], ids=named)
def test_without_8_bits_nothing_but_the_8_bit_result_changes(attack: Attack) -> None:
    model, task = linear_task()
    whole, floats = attack.craft(model, task), attack.craft(model, replace(linear_task()[1], eight_bits=False))
    np.testing.assert_array_equal(floats.probes, whole.probes)
    np.testing.assert_array_equal(floats.success, whole.success)
    assert not floats.success8.any()
    np.testing.assert_array_equal(to_unit(floats.probes8), task.probes)
    assert (floats.evaluations <= whole.evaluations).all()


def test_reading_an_image_at_positions_is_bilinear_and_black_outside() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4, 1).repeat(3, axis=2)
    x, y = np.array([0, 3, 1.5, 2.25, 3.01, -0.01, 1, np.nan]), np.array([0, 2, 0.5, 1, 1, 1, 2.5, 0])
    read = warp(bilinear(x, y, 3, 4), image, 1, 8)[0, :, 0]
    np.testing.assert_allclose(read, [0, 11, 3.5, 6.25, 0, 0, 0, 0])
