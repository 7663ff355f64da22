from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.intervals import Rate, trials_to_claim
from toolkit.statistics.power import mcnemar_power, pairs_to_bound, pairs_to_compare
from toolkit.statistics.tests import mcnemar


def test_without_errors_it_is_the_rule_of_three() -> None:
    for claim, pairs in ((0.05, 59), (0.01, 299), (0.001, 2995)):
        plan = pairs_to_bound(claim)
        assert (plan.pairs, plan.most_errors, plan.power) == (pairs, 0, 1.0)
        assert trials_to_claim(claim) == pairs


def test_published_acceptance_plans() -> None:
    """Sample sizes for 95 % reliability at 95 % confidence with 0 to 5 failures: 59, 93, 124, 153, 181, 208."""
    published = {0: 59, 1: 93, 2: 124, 3: 153, 4: 181, 5: 208}
    plans = [pairs_to_bound(0.05, expected) for expected in (0.0, 0.003, 0.006, 0.009, 0.011, 0.013)]
    assert [plan.pairs for plan in plans] == [published[plan.most_errors] for plan in plans]
    assert len({plan.most_errors for plan in plans}) >= 4


@pytest.mark.parametrize(("claim", "expected", "power"), [(0.05, 0.01, 0.8), (0.1, 0.05, 0.9), (0.5, 0.4, 0.8)])
def test_a_plan_shows_its_claim_as_often_as_it_says(claim: float, expected: float, power: float) -> None:
    plan = pairs_to_bound(claim, expected, power=power)
    assert (
        Rate(plan.most_errors, plan.pairs).upper_bound() <= claim < Rate(plan.most_errors + 1, plan.pairs).upper_bound()
    )
    drawn = np.random.default_rng(0).binomial(plan.pairs, expected, 4000)
    shown = np.mean([Rate(int(errors), plan.pairs).upper_bound() <= claim for errors in drawn])
    assert shown == pytest.approx(plan.power, abs=0.02)
    assert plan.power >= power
    fewer = plan.most_errors - 1
    assert stats.binom.cdf(fewer, plan.pairs - 1, expected) < power, "one error less is not enough"


def test_power_of_mcnemar_is_that_of_simulated_pairs() -> None:
    rng = np.random.default_rng(0)
    first, both = 0.15, 0.2
    discordant = rng.binomial(100, both, 4000)
    only_first = rng.binomial(discordant, first / both)
    simulated = np.mean([mcnemar(int(a), int(d - a)) <= 0.05 for a, d in zip(only_first, discordant, strict=True)])
    assert mcnemar_power(100, first, both - first, 0.05) == pytest.approx(simulated, abs=0.02)


def test_power_of_mcnemar_by_hand() -> None:
    # Six pairs that all fall to one side are the fewest that tell anything, and then p is 1/32.
    assert mcnemar_power(6, 1.0, 0.0, 0.05) == pytest.approx(1)
    assert mcnemar_power(5, 1.0, 0.0, 0.05) == 0
    assert mcnemar_power(6, 0.5, 0.0, 0.05) == pytest.approx(0.5**6)


def test_more_comparisons_or_smaller_differences_need_more_pairs() -> None:
    plan = pairs_to_compare(0.2, 0.05)
    assert plan.power >= 0.8 > mcnemar_power(int(plan.pairs / 1.05), 0.2, 0.05, 0.05)
    # Connor 1987, the normal approximation, which the exact test needs a little more than.
    z, zb = stats.norm.ppf(0.975), stats.norm.ppf(0.8)
    connor = (z * math.sqrt(0.25) + zb * math.sqrt(0.25 - 0.15**2)) ** 2 / 0.15**2
    assert connor < plan.pairs < 1.2 * connor
    assert pairs_to_compare(0.2, 0.05, comparisons=10).pairs > plan.pairs
    assert pairs_to_compare(0.2, 0.1).pairs > plan.pairs


def test_what_cannot_be_planned() -> None:
    with pytest.raises(InputError, match="cannot be shown to be at most"):
        pairs_to_bound(0.05, 0.05)
    with pytest.raises(InsufficientError, match="more than 10000000 pairs"):
        pairs_to_bound(0.05, 0.04999)
    with pytest.raises(InputError, match="must differ"):
        pairs_to_compare(0.1, 0.1)
    with pytest.raises(InputError, match="power is 1"):
        pairs_to_compare(0.1, 0.2, power=1.0)
    with pytest.raises(InsufficientError, match="more than 10000000"):
        pairs_to_compare(0.1, 0.100001)


@pytest.mark.parametrize(("first", "second"), [(0.3, 0.1), (0.1, 0.3), (0.9, 0.1), (0.05, 0.0)])
@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize("pairs", [0, 1, 6, 19])
def test_power_of_mcnemar_is_the_sum_over_all_outcomes(first: float, second: float, level: float, pairs: int) -> None:
    neither = max(0.0, 1 - first - second)
    total = sum(
        stats.multinomial.pmf([a, b, pairs - a - b], pairs, [first, second, neither])
        for a in range(pairs + 1)
        for b in range(pairs + 1 - a)
        if mcnemar(a, b) <= level
    )
    assert mcnemar_power(pairs, first, second, level) == pytest.approx(total, abs=1e-8)


def test_a_p_value_that_is_the_level_counts() -> None:
    # Six to nothing has p = 1/32 exactly, and nothing of six pairs has less.
    assert mcnemar_power(6, 1.0, 0.0, 1 / 32) == pytest.approx(1)
    assert mcnemar_power(6, 1.0, 0.0, 1 / 33) == 0


def test_a_plan_tells_what_it_was_made_for() -> None:
    plan = pairs_to_bound(0.05, 0.01, confidence=0.9, power=0.7)
    assert (plan.claim, plan.expected, plan.confidence) == (0.05, 0.01, 0.9)
    assert all(isinstance(count, int) for count in (plan.pairs, plan.most_errors, pairs_to_compare(0.3, 0.1).pairs))
    assert plan.power == pytest.approx(stats.binom.cdf(plan.most_errors, plan.pairs, 0.01))
    assert Rate(plan.most_errors, plan.pairs).upper_bound(0.9) <= 0.05
    assert Rate(plan.most_errors, plan.pairs - 1).upper_bound(0.9) > 0.05
    both = pairs_to_compare(0.3, 0.1, level=0.1, power=0.7, comparisons=4)
    assert (both.only_first, both.only_second, both.level, both.comparisons) == (0.3, 0.1, 0.1, 4)
    assert both.power == mcnemar_power(both.pairs, 0.3, 0.1, 0.025) >= 0.7


def test_a_plan_is_for_95_percent_and_a_power_of_80_unless_it_is_told() -> None:
    bound = pairs_to_bound(0.1, 0.02)
    assert bound == pairs_to_bound(0.1, 0.02, 0.95, 0.8)
    assert bound not in {pairs_to_bound(0.1, 0.02, 0.9), pairs_to_bound(0.1, 0.02, power=0.95)}
    assert pairs_to_compare(0.3, 0.1) == pairs_to_compare(0.3, 0.1, 0.05, 0.8, 1)


def test_comparisons_share_the_level() -> None:
    assert pairs_to_compare(0.3, 0.1, comparisons=10).pairs == pairs_to_compare(0.3, 0.1, level=0.005).pairs


def test_a_power_that_is_just_reached_is_enough() -> None:
    # Two pairs without an error show a half at 75 %; a quarter goes wrong in none of two with probability 9/16.
    power = float(stats.binom.cdf(0, 2, 0.25))
    plan = pairs_to_bound(0.5, 0.25, 0.75, power)
    assert (plan.pairs, plan.most_errors, plan.power) == (2, 0, power)
    just = mcnemar_power(6, 0.5, 0.0, 0.05)
    assert pairs_to_compare(0.5, 0.0, power=just).pairs == 6


def test_ten_million_pairs_are_the_most() -> None:
    most = 10_000_000
    # (1 - claim)^n = 5 % half a pair before and after ten million.
    assert pairs_to_bound(-math.expm1(math.log(0.05) / (most - 0.5))).pairs == most
    with pytest.raises(InsufficientError):
        pairs_to_bound(-math.expm1(math.log(0.05) / (most + 0.5)))


def test_certain_outcomes_can_be_planned() -> None:
    assert pairs_to_compare(1.0, 0.0).pairs == 6
    assert pairs_to_compare(0.0, 1.0).pairs == 6


def test_shares_outside_of_their_range_are_refused() -> None:
    for shares in ((-0.1, 0.2), (0.2, -0.1), (0.6, 0.5), (0.0, 0.0)):
        with pytest.raises(InputError):
            pairs_to_compare(*shares)
    for name in ("level", "power"):
        for value in (0.0, 1.0):
            with pytest.raises(InputError):
                pairs_to_compare(0.3, 0.1, **{name: value})
    with pytest.raises(InputError):
        pairs_to_compare(0.3, 0.1, comparisons=0)
    for value in (0.0, 1.0):
        for given in ({"claim": value}, {"claim": 0.1, "confidence": value}, {"claim": 0.1, "power": value}):
            with pytest.raises(InputError):
                pairs_to_bound(**given)
    with pytest.raises(InputError):
        pairs_to_bound(0.1, -0.01)


@pytest.mark.parametrize("level", [0.05, 0.3])
def test_power_of_mcnemar_over_many_pairs(level: float) -> None:
    """Each number of discordant pairs by itself, by the p values of all of its outcomes."""
    total = 0.0
    for discordant in range(301):
        first = np.arange(discordant + 1)
        p_values = 2 * stats.binom.cdf(np.minimum(first, discordant - first), discordant, 0.5)
        reached = stats.binom.pmf(first, discordant, 0.6)[p_values <= level].sum()
        total += stats.binom.pmf(discordant, 300, 0.5) * reached
    assert mcnemar_power(300, 0.3, 0.2, level) == pytest.approx(total, abs=1e-8)
