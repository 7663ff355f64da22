"""An attack that fails shows something only if it was strong enough, and could speak of the policy's budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from tests.risk.runs import ATTACKS, BUDGET, Told, told_run
from tests.risk.test_gate import with_attack
from toolkit.attacks.base import Attack, Traits
from toolkit.audit.plan import Knowledge
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.assessment import DeclaredAttack, Target, declared_attack
from toolkit.registry import discover
from toolkit.risk.evidence import doubted, evidence_class, largest, no_evidence
from toolkit.risk.policy import Norm, Policy, find_policy

POLICY = find_policy("access-control")
TARGET = told_run([]).assessment.target


def declared(name: str, attacks: Mapping[str, Attack] = ATTACKS) -> DeclaredAttack:
    return DeclaredAttack(name, attacks[name].needs, attacks[name].traits)


def of_size(height: int, width: int) -> Target:
    return replace(TARGET, height=height, width=width)


def why_not(
    name: str, knowledge: Knowledge = "perfect", policy: Policy = POLICY, attacks: Mapping[str, Attack] | None = None
) -> str:
    known = "n2c" if knowledge == "partial" else None
    a = told_run([Told(name, knowledge, "mean3", known=known)], attacks=attacks).assessment
    return no_evidence(a, a.scenarios[0], declared_attack(a, name), policy)


@pytest.mark.parametrize(
    ("traits", "target", "norm", "expected"),
    [
        (Traits(norm="linf", epsilon=0.01), of_size(8, 8), "linf", 0.01),
        (Traits(norm="linf", epsilon=0.01), of_size(8, 8), "rms", 2.55),
        (Traits(norm="linf", epsilon=0.01), of_size(112, 96), "rms", 2.55),
        # The square root of 3 x 4 x 12 values is 12.
        (Traits(norm="linf", epsilon=0.01), of_size(4, 12), "l2", 0.12),
        (Traits(norm="l2", epsilon=2.0), of_size(4, 12), "l2", 2.0),
        (Traits(norm="l2", epsilon=2.0), of_size(4, 12), "rms", 42.5),
        (Traits(norm="l2", epsilon=2.0), of_size(160, 160), "rms", 1.840304),
        # All of it may be in one value.
        (Traits(norm="l2", epsilon=0.5), of_size(4, 12), "linf", 0.5),
        (Traits(), of_size(8, 8), "rms", None),
        (Traits(budget=1000), of_size(8, 8), "linf", None),
        (Traits(norm="l2"), of_size(8, 8), "rms", None),
    ],
)
def test_the_largest_perturbation_of_a_ball_by_hand(
    traits: Traits, target: Target, norm: Norm, expected: float | None
) -> None:
    found = largest(DeclaredAttack("a", "gradient", traits), target, norm)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-6))


def test_a_perturbation_in_the_corner_of_a_ball_has_the_largest_norms() -> None:
    delta = np.full((6, 10, 3), 0.02) * np.random.default_rng(0).choice([-1, 1], (6, 10, 3))
    norms = {"linf": np.abs(delta).max(), "l2": np.linalg.norm(delta), "rms": 255 * np.sqrt(np.mean(delta**2))}
    balls = (Traits(norm="linf", epsilon=0.02), Traits(norm="l2", epsilon=float(norms["l2"])))
    for traits in balls:
        for norm in ("l2", "rms"):
            found = largest(DeclaredAttack("a", "gradient", traits), of_size(6, 10), norm)  # type: ignore[arg-type]
            assert found == pytest.approx(norms[norm])
    assert largest(DeclaredAttack("a", "gradient", balls[0]), of_size(6, 10), "linf") == norms["linf"]


# The class where the attacker knows the deployed profile, or queries it.
CLASSES = {
    "minimal": [
        "carlini-wagner",
        "ddn",
        "deepfool",
        "deepfool-linf",
        "fgsm",
        "fmn",
        "fmn-l1",
        "fmn-linf",
        "sigma-zero",
    ],
    "budgeted": ["apgd", "apgd-l2", "bsr", "momentum", "momentum-l2", "pgd", "pgd-l2", "universal"],
    "query": ["boundary", "cgba", "evolutionary", "hop-skip-jump", "nes", "simba", "sparse-rs", "square"],
    "noise": ["blended", "contrast", "gaussian", "salt-pepper", "uniform"],
    "worn": ["glasses"],
}


def test_every_attack_has_a_class_by_what_the_attacker_has() -> None:
    shipped = discover("attack")
    assert sorted(name for names in CLASSES.values() for name in names) == sorted(shipped)
    for kind, names in CLASSES.items():
        for name in names:
            attack = declared(name, shipped)
            assert {evidence_class(attack, k) for k in ("perfect", "query")} == {kind}, name
            # Who does not know the profile hopes that the probes transfer.
            transfer = {evidence_class(attack, k) for k in ("zero", "partial")}
            assert transfer == {"transfer"}, name


@pytest.mark.parametrize(
    ("name", "knowledge"),
    [
        ("deepfool", "perfect"), ("fmn", "perfect"), ("carlini-wagner", "perfect"), ("apgd", "perfect"),
        ("apgd", "zero"), ("apgd", "partial"), ("square", "query"), ("square", "zero"), ("boundary", "query"),
        ("hop-skip-jump", "query"), ("glasses", "perfect"),
    ],
)  # fmt: skip
def test_strong_attacks_that_can_speak_of_the_budget_are_evidence(name: str, knowledge: Knowledge) -> None:
    assert why_not(name, knowledge) == ""


BOUNDARY = "its probes lie on the boundary of what the attacker knows, and do not spend the budget"


@pytest.mark.parametrize(
    ("name", "knowledge", "reasons"),
    [
        ("fgsm", "perfect", ["it has only 0 steps (the policy asks for 40)", "it looks for the smallest Linf, not L2"]),
        ("deepfool-linf", "perfect", ["it looks for the smallest Linf, not L2"]),
        ("fmn-l1", "perfect", ["it looks for the smallest L1, not L2"]),
        ("sigma-zero", "perfect", ["it looks for the smallest L0, not L2"]),
        ("glasses", "zero", ["what it changes is worn, and has no budget to spend"]),
        (
            "momentum",
            "perfect",
            [
                "it has only 10 steps (the policy asks for 40)",
                "its ball reaches RMS 16/255, beyond RMS <= 2.15/255",
            ],
        ),
        ("pgd", "perfect", ["its ball reaches RMS 8/255, beyond RMS <= 2.15/255"]),
        # 255 x 2 over the square root of 3 x 8 x 8.
        ("pgd-l2", "perfect", ["its ball reaches RMS 36.8/255, beyond RMS <= 2.15/255"]),
        (
            "universal",
            "perfect",
            [
                "it has only 0 steps (the policy asks for 40), 0 starts (the policy asks for 1)",
                "its ball reaches RMS 16/255, beyond RMS <= 2.15/255",
            ],
        ),
        ("simba", "query", ["it has only 500 queries (the policy asks for 1000)", "it minimizes nothing"]),
        ("sparse-rs", "query", ["it minimizes nothing"]),
        ("nes", "query", ["its ball reaches RMS 8/255, beyond RMS <= 2.15/255"]),
        ("deepfool", "zero", [BOUNDARY]),
        ("boundary", "zero", [BOUNDARY]),
        ("fgsm", "partial", ["it has only 0 steps (the policy asks for 40)", BOUNDARY]),
        (
            "gaussian",
            "perfect",
            [
                "it has only 20 noisy images (the policy asks for 100)",
                "its weakest noise, RMS 6.38/255, is beyond RMS <= 2.15/255",
            ],
        ),
        (
            "salt-pepper",
            "perfect",
            [
                "it has only 50 noisy images (the policy asks for 100)",
                "it does not declare how weak its weakest noise is",
            ],
        ),
    ],
)
def test_attacks_as_they_come_that_are_no_evidence(name: str, knowledge: Knowledge, reasons: list[str]) -> None:
    assert why_not(name, knowledge, attacks=discover("attack")) == "; ".join(reasons)


def test_a_ball_fills_the_budget_and_no_more() -> None:
    for share, shows in ((1.0, True), (1 + 1e-7, True), (1 + 1e-5, False), (0.9001, True), (0.8999, False)):
        attacks = with_attack("apgd", epsilon=BUDGET * share)
        assert (why_not("apgd", attacks=attacks) == "") == shows, share
        assert (why_not("apgd", "zero", attacks=attacks) == "") == shows, share
    ends = why_not("apgd", attacks=with_attack("apgd", epsilon=1 / 255))
    assert ends == "its ball ends at RMS 1/255, and does not spend RMS <= 2.15/255"
    half = replace(POLICY, strength=replace(POLICY.strength, fill=0.5))
    assert why_not("apgd", policy=half, attacks=with_attack("apgd", epsilon=BUDGET * 0.51)) == ""


def test_a_ball_of_another_norm_speaks_of_rms_and_l2_but_not_of_linf() -> None:
    linf = replace(POLICY, norm="linf", budget=8 / 255)
    assert why_not("apgd", policy=linf, attacks=with_attack("apgd", epsilon=8 / 255)) == ""
    assert why_not("pgd-l2", policy=linf) == "its ball is of another norm than the budget, Linf <= 0.0313725"
    l2 = replace(POLICY, norm="l2", budget=2.0)
    assert why_not("pgd-l2", policy=l2) == ""
    # 0.15 times the square root of 192 is 2.08, and 0.14 times it is 1.94.
    assert "its ball reaches L2 2.08" in why_not("apgd", policy=l2, attacks=with_attack("apgd", epsilon=0.15))
    assert why_not("apgd", policy=l2, attacks=with_attack("apgd", epsilon=0.14)) == ""


@pytest.mark.parametrize(
    ("parameters", "policy", "why"),
    [
        # 255 x 0.5 / 100 is 1.3, and 255 x 0.5 / 50 is 2.6.
        ({"levels": 100}, POLICY, ""),
        ({"levels": 50, "draws": 2}, POLICY, "its weakest noise, RMS 2.55/255, is beyond RMS <= 2.15/255"),
        ({"levels": 99}, POLICY, "it has only 99 noisy images (the policy asks for 100)"),
        # 0.005 times the square root of 192 is 0.0693.
        ({"levels": 100}, replace(POLICY, norm="l2", budget=0.07), ""),
        ({"levels": 100}, replace(POLICY, norm="l2", budget=0.069), "its weakest noise, L2 0.0693, is beyond"),
        ({"levels": 100}, replace(POLICY, norm="linf", budget=0.9), "does not declare how weak its weakest noise is"),
        ({"levels": 100, "largest": 0.2}, POLICY, "gaussian.largest differs from the attack as it comes"),
    ],
)
def test_noise_needs_enough_images_and_a_level_within_the_budget(
    parameters: dict[str, float], policy: Policy, why: str
) -> None:
    found = why_not("gaussian", policy=policy, attacks=with_attack("gaussian", **parameters))
    assert found == why if not why else why in found


def test_only_attacks_with_a_ball_are_asked_for_starts() -> None:
    twice = replace(POLICY, strength=replace(POLICY.strength, restarts=2))
    assert why_not("apgd", policy=twice) == "it has only 1 starts (the policy asks for 2)"
    assert why_not("apgd", policy=twice, attacks=with_attack("apgd", epsilon=BUDGET, restarts=2)) == ""
    assert why_not("deepfool", policy=twice) == ""


def test_what_is_doubted_or_weakened_is_no_evidence_however_strong_it_is() -> None:
    weak = with_attack("deepfool", overshoot=0.0)
    assert why_not("deepfool", attacks=weak) == "deepfool.overshoot differs from the attack as it comes"
    run = told_run([Told("deepfool", "perfect", "mean3")], checks=[Check("parity", "mean3", False, "")], attacks=weak)
    a = run.assessment
    assert no_evidence(a, a.scenarios[0], declared_attack(a, "deepfool"), POLICY) == "a sanity check failed"


def test_doubts_are_about_the_profile_that_is_attacked_or_known() -> None:
    for about, doubt in (
        ("mean3", True), ("n2c", True), ("apgd on n2c", True), ("apgd on mean3", True),
        ("none", False), ("xmean3", False), ("mean3 on red30", False), ("the model", False),
    ):  # fmt: skip
        for passed in (True, False):
            check = Check("gradient", about, passed, "")
            a = told_run([Told("apgd", "partial", "mean3", known="n2c")], checks=[check]).assessment
            assert doubted(a, a.scenarios[0]) == (doubt and not passed), about


def test_the_limits_of_a_ball_and_of_noise_are_within_them() -> None:
    """In numbers that have no rounding: a budget of 1/4 of which a ball must fill half."""
    policy = replace(POLICY, norm="linf", budget=0.25, strength=replace(POLICY.strength, fill=0.5))
    for epsilon, shows in ((0.125, True), (0.1249, False), (0.25 * (1 + 1e-6), True), (0.25 * (1 + 2e-6), False)):
        assert (why_not("apgd", policy=policy, attacks=with_attack("apgd", epsilon=epsilon)) == "") == shows, epsilon
    many = with_attack("gaussian", levels=100)
    weakest = many["gaussian"].traits.finest
    assert weakest is not None
    assert why_not("gaussian", policy=replace(POLICY, budget=255 * weakest), attacks=many) == ""
    assert "beyond" in why_not("gaussian", policy=replace(POLICY, budget=254.9 * weakest), attacks=many)


def test_a_random_profile_must_have_met_each_probe_as_often_as_the_policy_allows() -> None:
    a = told_run([Told("fmn", "perfect", "mean3")]).assessment
    for presented, tries, said in (
        (10, 10, ""),
        (5, 6, "presented 5 times (the policy allows 6 tries)"),
        (1, 10, ""),
        (2, 3, "presented 2 times (the policy allows 3 tries)"),
    ):
        found = no_evidence(
            a, replace(a.scenarios[0], presented=presented), declared_attack(a, "fmn"), replace(POLICY, tries=tries)
        )
        assert found == (f"each probe was {said}" if said else "")


def test_under_a_budget_in_linf_the_smallest_linf_is_looked_for() -> None:
    policy = replace(POLICY, norm="linf", budget=8 / 255)
    assert why_not("fmn-linf", policy=policy) == ""
    assert why_not("fmn", policy=policy) == "it looks for the smallest L2, not Linf"


def test_what_is_worn_has_no_budget_even_if_it_has_a_ball() -> None:
    a = told_run([Told("glasses", "perfect", "mean3")]).assessment
    worn = declared_attack(a, "glasses")
    assert worn.traits.masked
    for traits in (worn.traits, replace(worn.traits, norm="linf", epsilon=1.0)):
        assert no_evidence(a, a.scenarios[0], replace(worn, traits=traits), POLICY) == ""
