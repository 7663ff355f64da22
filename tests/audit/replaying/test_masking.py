"""Masking: attacks without gradients that do better than attacks with them are noticed, on the same pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.audit.replaying.test_sanity import NONE, outcome
from toolkit.attacks.apgd import Apgd
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.glasses import Glasses
from toolkit.attacks.hop_skip_jump import HopSkipJump
from toolkit.attacks.momentum_l2 import ATTACK as FAR
from toolkit.attacks.pgd import Pgd
from toolkit.attacks.square import Square
from toolkit.attacks.universal import Universal
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.replaying.masking import check_masking
from toolkit.audit.replaying.sanity import Check
from toolkit.profiles.profile import Profile

OTHER = Profile("other", "", (), "")


def fell(first: int, last: int = 10, of: int = 10) -> list[bool]:
    return [first <= i < last for i in range(of)]


def at(told: Any, **norms: Any) -> Any:
    """The outcome with other norms of its perturbations."""
    scenario, replayed = told
    n = len(replayed.success)
    return scenario, replace(replayed, **{k: np.broadcast_to(np.asarray(v, float), (n,)) for k, v in norms.items()})


def masked(*outcomes: Any, eligible: int = 10) -> list[Check]:
    every = np.arange(10) < eligible
    clean = CleanRun(np.zeros((0, 1), np.float32), np.zeros(10), every, np.zeros(10), np.inf, every)
    return check_masking(outcomes, {NONE: clean, OTHER: clean})


@pytest.mark.parametrize(("found", "passes"), [(4, True), (5, False)])
def test_queries_in_the_same_ball_must_not_find_more(found: int, passes: bool) -> None:
    """Five pairs that only queries get are more than chance; four are not."""
    square = at(outcome(fell(0, found), Square(epsilon=0.1), "query"), linf=0.1)
    assert masked(at(outcome(fell(10), Apgd(epsilon=0.1))), square) == [
        Check("masking", "square on none", passes,
              f"with no gradients, it does better on {found} pairs; attacks with gradients do better on 0")
    ]  # fmt: skip


def test_each_pair_that_only_gradients_get_weighs_against_one_that_only_queries_get() -> None:
    square = at(outcome(fell(0, 6), Square(epsilon=0.1), "query"), linf=0.1)
    (check,) = masked(at(outcome(fell(6), Apgd(epsilon=0.1)), linf=0.1), square)
    assert check.passed
    assert check.detail.endswith("it does better on 6 pairs; attacks with gradients do better on 4")
    (check,) = masked(at(outcome(fell(6), Apgd(epsilon=0.1)), linf=0.1), square, eligible=6)
    assert not check.passed


def test_a_smaller_ball_is_not_asked_for_what_a_larger_one_holds() -> None:
    square = at(outcome(fell(0), Square(epsilon=0.1), "query"), linf=0.1)
    assert masked(outcome(fell(10), Apgd(epsilon=0.05)), square)[0].passed
    assert not masked(outcome(fell(10), Apgd(epsilon=0.1)), square)[0].passed
    # Another norm is another question, unless an attack without a bound finds nothing at all.
    assert masked(outcome(fell(10), Pgd(norm="l2", epsilon=9.0)), square)[0].passed
    assert not masked(outcome(fell(10), Fmn()), square)[0].passed
    # One step promises nothing.
    assert masked(outcome(fell(10), replace_traits()), square)[0].passed


def replace_traits() -> Any:
    class OneStep(Fgsm):
        traits = replace(Fgsm.traits, minimizes=None)

    return OneStep()


def test_attacks_without_a_ball_are_compared_by_what_they_need() -> None:
    fmn = at(outcome(fell(0), Fmn()), l2=1.0)
    for l2, passes in ((0.9, False), (1.0, True), (1.1, True)):
        assert masked(fmn, at(outcome(fell(0), HopSkipJump(), "query"), l2=l2))[0].passed is passes
    nearer = np.where(np.arange(10) < 6, 0.9, 1.1)
    assert masked(fmn, at(outcome(fell(0), HopSkipJump(), "query"), l2=nearer))[0].passed
    noise = at(outcome(fell(0), Gaussian()), l2=9.0)
    assert masked(fmn, noise)[0].passed
    assert not masked(outcome(fell(10), Fmn()), noise)[0].passed


def test_transfer_must_not_find_more_than_the_gradients_of_the_profile() -> None:
    far = at(outcome(fell(0), replace(FAR, norm="linf", epsilon=0.1), "zero", profile=OTHER), linf=0.1)
    far = replace(far[0], known=NONE), far[1]
    (check,) = masked(outcome(fell(10), Apgd(epsilon=0.1), profile=OTHER), far)
    assert check.about == f"{FAR.name} on other"
    assert not check.passed
    assert check.detail.startswith("with knowledge of none, it does better on 10 pairs")
    assert masked(at(outcome(fell(0), Apgd(epsilon=0.1), profile=OTHER), linf=0.1), far)[0].passed


def test_what_gradients_found_on_other_draws_counts_for_them() -> None:
    """On a random profile, a probe may fail although its gradients led to the goal."""
    scenario, replayed = at(outcome(fell(10), Apgd(epsilon=0.1)), linf=0.1)
    crafted = replace(replayed, crafted=np.ones(10, np.bool_))
    square = at(outcome(fell(0), Square(epsilon=0.1), "query"), linf=0.1)
    assert masked((scenario, crafted), square)[0].passed


def test_only_attacks_with_and_without_gradients_are_compared() -> None:
    noise = outcome(fell(0), Gaussian())
    assert masked(noise) == []
    # What a person wears, and what was learned from others, promises nothing on these pairs.
    assert masked(noise, outcome(fell(10), Glasses())) == []
    assert masked(noise, outcome(fell(10), Universal())) == []
    # An attack that is crafted with gradients of the profile itself does not stand for those without.
    assert masked(outcome(fell(10), Fmn()), outcome(fell(0), Apgd())) == []
