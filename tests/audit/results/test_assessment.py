"""What an assessment counts and says, on outcomes that are written down."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from toolkit.attacks.base import Traits
from toolkit.attacks.square import Square
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.plan import Scenario, Unavailable
from toolkit.audit.replaying.replay import Replay
from toolkit.audit.results.assessment import (
    ScenarioResult,
    declared_attack,
    make_caveats,
    scenario_results,
    worst_finding,
)
from toolkit.errors import InputError
from toolkit.profiles.profile import Profile, find_profile
from toolkit.statistics.intervals import Rate


def bools(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


# Five genuine pairs, then three of impostors. The fourth is flagged when clean; the fifth and the last are wrong then.
GENUINE = bools("xxxxx---")
REPLAY = Replay(
    crafted=bools("xx-xxx-x"),
    passed=bools("xx-xx--x")[:, None],
    at_goal=bools("xx-xx--x"),
    scores=np.zeros(8),
    success_float=bools("xxxxxx-x"),
    l2=np.array([1.0, 5.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    linf=np.array([0.1, 0.3, 9, 9, 9, 9, 9, 9]),
    rms=np.array([2.0, 8.0, 0, 0, 0, 0, 0, 0]),
    l2_float=np.array([1.0, 5.0, 9.0, 0.0, 0.0, 0.25, 0.0, 0.0]),
    l2_defended=np.array([3.0, 4.0, 0, 0, 0, 0, 0, 0]),
    evaluations=np.array([10, 30, 60, 120, 80, 1, 2, 6]),
)
CLEAN = CleanRun(
    np.zeros((0, 1), np.float32), np.zeros(8), bools("xxxx-xx-"), np.zeros(8), 0.5, bools("xxx--xx-")
)  # fmt: skip


def scenario(attack: Any) -> Scenario:
    return Scenario(attack, "query", Profile("deployed", "", (), ""), Profile("guessed", "", (), ""))


def test_every_number_of_a_scenario() -> None:
    dodging, impersonation = scenario_results(scenario(Square(budget=120)), REPLAY, CLEAN, GENUINE)
    expected = {
        "attack": "square", "knowledge": "query", "known": "guessed", "profile": "deployed", "goal": "dodging",
        "pairs": 5, "clean_errors": 1, "clean_flagged": 1, "eligible": 3, "crafted": 2, "replayed": 2,
        "asr": Rate(2, 3), "asr_float": Rate(3, 3),
        "asr_at_l2": ((5.0, Rate(2, 3)), (1.0, Rate(1, 3))),
        "asr_float_at_l2": ((5.0, Rate(2, 3)), (1.0, Rate(1, 3))),
        "asr_at_queries": ((10, Rate(1, 3)), (30, Rate(2, 3)), (100, Rate(2, 3)), (120, Rate(2, 3))),
        "mean_l2": 3.0, "median_l2": 3.0, "median_linf": pytest.approx(0.2), "median_rms": 5.0,
        "mean_l2_float": 5.0, "median_l2_float": 5.0, "mean_l2_defended": 3.5,
        # Over all pairs of the goal: model runs are spent whether a pair counts or not.
        "mean_evaluations": 60.0,
    }  # fmt: skip
    assert {name: getattr(dodging, name) for name in expected} == expected
    expected = {
        "goal": "impersonation", "pairs": 3, "clean_errors": 1, "clean_flagged": 0, "eligible": 2, "crafted": 1,
        "asr": Rate(0, 2), "asr_float": Rate(1, 2), "asr_float_at_l2": ((5.0, Rate(1, 2)), (1.0, Rate(1, 2))),
        "mean_l2": None, "median_rms": None, "mean_l2_float": 0.25, "mean_evaluations": 3.0,
    }  # fmt: skip
    assert {name: getattr(impersonation, name) for name in expected} == expected


def test_medians_are_not_means() -> None:
    replay = replace(REPLAY, passed=bools("xxx-----")[:, None], l2=np.array([1.0, 2, 9, 0, 0, 0, 0, 0]))
    replay = replace(replay, l2_float=replay.l2, linf=replay.l2 / 10, rms=replay.l2 * 10)
    (dodging, _) = scenario_results(scenario(Square()), replay, CLEAN, GENUINE)
    assert (dodging.mean_l2, dodging.median_l2) == (4, 2)
    assert (dodging.mean_l2_float, dodging.median_l2_float) == (4, 2)
    assert (dodging.median_linf, dodging.median_rms) == (pytest.approx(0.2), 20)


def test_a_goal_without_pairs_has_no_result() -> None:
    (only,) = scenario_results(scenario(Square()), REPLAY, CLEAN, np.zeros(8, np.bool_))
    assert (only.goal, only.pairs) == ("impersonation", 8)


@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        (None, []),
        (5, [5]),
        (100, [10, 30, 100]),
        (2 * 10**6, [10, 30, 100, 300, 1000, 3000, 10**4, 3 * 10**4, 10**5, 3 * 10**5, 10**6, 2 * 10**6]),
    ],
)
def test_success_is_told_at_tens_and_thirties_up_to_the_budget(budget: int | None, counts: list[int]) -> None:
    attack = SimpleNamespace(name="asks", traits=Traits(budget=budget))
    (dodging, _) = scenario_results(scenario(attack), REPLAY, CLEAN, GENUINE)
    assert [count for count, _ in dodging.asr_at_queries] == counts


def test_a_declaration_is_found_by_its_name_or_missed_aloud() -> None:
    declared = tuple(SimpleNamespace(name=name) for name in ("one", "two"))
    run: Any = SimpleNamespace(run="r", declared=declared)
    assert declared_attack(run, "two") is declared[1]
    with pytest.raises(InputError, match="does not declare three"):
        declared_attack(run, "three")


def found(profile: str, knowledge: str, asr: Rate, rms: float | None = 1.0, **changes: Any) -> ScenarioResult:
    (made, _) = scenario_results(scenario(Square()), REPLAY, CLEAN, GENUINE)
    return replace(made, profile=profile, knowledge=knowledge, asr=asr, median_rms=rms, **changes)


def test_the_worst_finding_is_of_who_knows_the_defense() -> None:
    bare, blind = found("none", "perfect", Rate(10, 10)), found("mean3", "zero", Rate(9, 10))
    adaptive = found("mean3", "perfect", Rate(3, 10))
    assert worst_finding([bare, blind, adaptive]) == (
        "square dodges in 3 of 10 eligible pairs through mean3 with perfect knowledge, at a median 1.0/255 RMS."
    )
    assert "10 of 10 eligible pairs through none" in worst_finding([blind, bare]), "nobody knew a defense"
    unbroken = replace(adaptive, asr=Rate(0, 10), median_rms=None)
    assert "10 of 10 eligible pairs through none" in worst_finding([blind, bare, unbroken])


def test_the_worst_finding_is_the_surest_one_and_then_the_least_visible_one() -> None:
    few, many = found("few", "perfect", Rate(3, 3)), found("many", "query", Rate(40, 50))
    assert "through many" in worst_finding([few, many])
    plain, hidden = found("plain", "perfect", Rate(3, 3), 0.5), found("hidden", "perfect", Rate(3, 3), 0.2)
    assert "through hidden" in worst_finding([plain, hidden, plain])
    # Nothing is less visible than no change at all.
    assert "through clean" in worst_finding([hidden, found("clean", "perfect", Rate(3, 3), 0.0), plain])


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ("dodging", "square dodges in"),
        ("impersonation", "square impersonates in"),
        ("group", "square matches an enrolled person in"),
    ],
)
def test_the_worst_finding_names_what_happened(goal: Any, words: str) -> None:
    assert worst_finding([found("mean3", "perfect", Rate(1, 2), goal=goal)]).startswith(words)


def test_no_success_is_said_with_what_it_does_not_show() -> None:
    said = worst_finding([found("mean3", "perfect", Rate(0, 2), None)])
    assert said.startswith("No attack succeeded on an eligible pair.")
    assert worst_finding([]) == "No attack was run."


def sized(goal: Any, eligible: int, profile: str = "none", knowledge: str = "perfect") -> ScenarioResult:
    return found(profile, knowledge, Rate(0, eligible), goal=goal, eligible=eligible)


def clean_of(profile: str, accuracy: Rate) -> Any:
    return SimpleNamespace(profile=profile, accuracy=accuracy)


def caveats(*scenarios: ScenarioResult, goals: Any = ("dodging",), **changes: Any) -> list[str]:
    given: dict[str, Any] = {"clean": [], "unavailable": (), "left_out": 0, "draws": {}, "goals": goals, **changes}
    return make_caveats(scenarios=list(scenarios), **given)


def test_a_goal_without_pairs_is_a_caveat() -> None:
    assert make_caveats([], [], (), 0, {}) == [
        "dodging was not tested, because there are no genuine pairs",
        "impersonation was not tested, because there are no impostor pairs",
    ]
    assert caveats(goals=("group",)) == ["group was not tested, because there are no impostor pairs"]


def test_few_pairs_are_a_caveat_with_the_bound_that_they_allow() -> None:
    # Of 59 pairs without a success, 1 - 0.05^(1/59) is 4.95 %; of 1 pair, 95 %.
    words = "even 0 successes show only that the ASR is below"
    assert caveats(sized("dodging", 59), sized("dodging", 80), sized("impersonation", 3)) == [
        f"dodging: with n = 59, {words} 5.0 % (95 % upper bound)"
    ]
    assert caveats(sized("dodging", 1)) == [f"dodging: with n = 1, {words} 95.0 % (95 % upper bound)"]
    assert caveats(sized("dodging", 0), sized("dodging", 80)) == [
        "dodging: a profile has no eligible pairs, so its attack success rate (ASR) is unknown"
    ]


def test_what_was_not_run_is_a_caveat() -> None:
    scenarios = (
        sized("dodging", 0, "b", "zero"), sized("dodging", 0, "a", "partial"), sized("dodging", 0, "c", "query"),
        sized("dodging", 0, "c", "zero"), sized("dodging", 0, "none", "zero"),
    )  # fmt: skip
    assert caveats(*scenarios, unavailable=(Unavailable("fgsm", "no gradients"),))[1:] == [
        "fgsm was not run: no gradients",
        "a: no adaptive attack was run, so this run does not show that it is robust",
        "b: no adaptive attack was run, so this run does not show that it is robust",
    ]


def test_draws_pairs_left_out_and_wrong_models_are_caveats() -> None:
    clean = [clean_of("low", Rate(79, 100)), clean_of("enough", Rate(80, 100)), clean_of("unknown", Rate(0, 0))]
    assert caveats(goals=(), clean=clean, left_out=2, draws={"noisy": 8}) == [
        (
            "noisy is random: ASR counts the first presentation of each probe, on a draw that the attacker did not "
            "see. Gradients of attackers who know it are averaged over 8 draws. Another seed gives other decisions"
        ),
        "2 pairs were left out; the report lists the reasons",
        "low: clean accuracy is only 79.0 %; check the crop, layout and threshold in the manifest",
    ]
    assert caveats(goals=()) == []


def test_a_random_profile_has_a_success_rate_for_each_number_of_tries() -> None:
    passed = np.zeros((8, 10), np.bool_)
    passed[0, :5], passed[1, 9] = True, True
    replay = replace(REPLAY, passed=passed, at_goal=np.ones(8, np.bool_))
    asked = replace(scenario(Square(budget=120)), profile=find_profile("randomized"))
    dodging, _ = scenario_results(asked, replay, CLEAN, GENUINE)
    # The three eligible pairs pass five, one and none of ten times; all choices of k tries count alike.
    for rate, shares in zip(
        dodging.hit_at,
        [(5 / 10, 1 / 10, 0), (1 - (5 * 4 * 3) / (10 * 9 * 8), 3 / 10, 0), (1, 1, 0)],
        strict=True,
    ):
        assert rate.value == pytest.approx(np.mean(shares))
    assert [rate.tries for rate in dodging.hit_at] == [1, 3, 10]
    alone, _ = scenario_results(scenario(Square(budget=120)), REPLAY, CLEAN, GENUINE)
    assert alone.hit_at == ()
