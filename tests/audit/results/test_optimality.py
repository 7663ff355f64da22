"""Optimality of a run's attacks: each in its norm, beside those with the same knowledge of the same profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.audit.replaying.test_sanity import NONE, outcome
from toolkit.attacks.apgd import Apgd
from toolkit.attacks.deepfool import DeepFool
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.glasses import Glasses
from toolkit.attacks.square import Square
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.results.optimality import Optimality, run_optimality
from toolkit.profiles.profile import Profile

OTHER = Profile("other", "", (), "")
GENUINE = np.array([True] * 3 + [False] * 2)


def with_norms(told: Any, l2: list[float], linf: float = 0.1) -> Any:
    """The outcome of five pairs with these norms; infinite where it failed."""
    scenario, replayed = told
    success = np.isfinite(l2)
    found = replace(
        replayed, passed=success[:, None], crafted=success, l2=np.where(success, l2, 0), linf=np.full(5, linf)
    )
    return scenario, found


def measured(*outcomes: Any, eligible: tuple[bool, ...] = (True,) * 5) -> dict[tuple[str, str, str], Optimality]:
    of = np.array(eligible)
    clean = CleanRun(np.zeros((0, 1), np.float32), np.zeros(5), of, np.zeros(5), np.inf, of)
    found = run_optimality(outcomes, {NONE: clean, OTHER: clean}, GENUINE)
    return {(one.attack, one.profile, one.goal): one for one in found}


def told(attack: Any, knowledge: Any = "perfect", profile: Profile = NONE) -> Any:
    return outcome([True] * 5, attack, knowledge, profile=profile)


def test_attacks_are_compared_goal_by_goal() -> None:
    found = measured(
        with_norms(told(Fmn()), [1, 2, 3, 4, 5]),
        with_norms(told(DeepFool()), [1.5, 3, 4.5, 4, np.inf]),
    )
    assert {key: one.value for key, one in found.items()} == {
        ("fmn", "none", "dodging"): 1.0,
        ("fmn", "none", "impersonation"): 1.0,
        ("deepfool", "none", "dodging"): pytest.approx(0.5),
        ("deepfool", "none", "impersonation"): 1.0,
    }
    assert {one.norm for one in found.values()} == {"l2"}


def test_only_eligible_pairs_count() -> None:
    best, other = with_norms(told(Fmn()), [1, 2, 3, 4, 5]), with_norms(told(DeepFool()), [9, 2, 3, 4, 5])
    assert measured(best, other)["deepfool", "none", "dodging"].value == pytest.approx(1 / 3)
    assert measured(best, other, eligible=(False, *[True] * 4))["deepfool", "none", "dodging"].value == 1.0


def test_a_ball_is_measured_in_its_norm() -> None:
    found = measured(
        with_norms(told(Apgd(epsilon=0.1)), [np.inf, 9, 9, np.inf, np.inf]),
        with_norms(told(Fmn()), [1, 2, 3, np.inf, np.inf], linf=0.1),
    )
    assert found["apgd", "none", "dodging"].value == pytest.approx(2 / 3)
    assert found["apgd", "none", "dodging"].norm == "linf"
    assert found["apgd", "none", "impersonation"].value is None


def test_only_the_same_knowledge_of_the_same_profile_is_compared() -> None:
    weak, strong = [2.0, 4.0, 6.0, 4.0, 5.0], [1.0, 2.0, 3.0, 1.0, 2.0]
    found = measured(
        with_norms(told(DeepFool()), weak),
        with_norms(told(Fmn(), profile=OTHER), strong),
        with_norms(told(Square(epsilon=0.1), "query"), strong),
        with_norms(told(Glasses()), strong),
        (replace(told(Fmn())[0], knowledge="zero"), with_norms(told(Fmn()), strong)[1]),
    )
    assert found["deepfool", "none", "dodging"].value == 1.0
    assert not [key for key in found if key[0] == "glasses"]
    assert ("fmn", "none", "dodging") not in found
