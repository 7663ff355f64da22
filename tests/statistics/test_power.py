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
    with pytest.raises(InputError, match="nothing to tell apart"):
        pairs_to_compare(0.1, 0.1)
    with pytest.raises(InputError, match="power is 1"):
        pairs_to_compare(0.1, 0.2, power=1.0)
    with pytest.raises(InsufficientError, match="more than 10000000"):
        pairs_to_compare(0.1, 0.100001)
