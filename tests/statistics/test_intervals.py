from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toolkit.errors import InputError
from toolkit.statistics.intervals import Rate, trials_to_claim


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    trials = draw(st.integers(1, 400))
    return Rate(draw(st.integers(0, trials)), trials)


@pytest.mark.parametrize(("trials", "two_sided", "one_sided"), [(24, 0.142, 0.117), (50, 0.071, 0.058)])
def test_no_success_is_not_zero_percent(trials: int, two_sided: float, one_sided: float) -> None:
    rate = Rate(0, trials)
    assert rate.clopper_pearson()[0] == 0
    assert rate.clopper_pearson()[1] == pytest.approx(two_sided, abs=5e-4)
    assert rate.upper_bound() == pytest.approx(one_sided, abs=5e-4)
    # Closed form: (1 - p)^n = 5 %.
    assert rate.upper_bound() == pytest.approx(1 - 0.05 ** (1 / trials))


def test_published_examples() -> None:
    """Newcombe 1998, table I: 81 of 263 and 15 of 148."""
    assert Rate(81, 263).wilson() == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert Rate(81, 263).clopper_pearson() == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert Rate(15, 148).wilson() == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert Rate(15, 148).clopper_pearson() == pytest.approx((0.0578, 0.1617), abs=5e-5)


@given(rates(), st.sampled_from([0.8, 0.95, 0.99]))
def test_agrees_with_scipy(rate: Rate, confidence: float) -> None:
    test = stats.binomtest(rate.successes, rate.trials)
    for method, ours in (("exact", rate.clopper_pearson(confidence)), ("wilson", rate.wilson(confidence))):
        theirs = test.proportion_ci(confidence, method)
        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    less = stats.binomtest(rate.successes, rate.trials, alternative="less").proportion_ci(confidence, "exact")
    greater = stats.binomtest(rate.successes, rate.trials, alternative="greater").proportion_ci(confidence, "exact")
    assert rate.upper_bound(confidence) == pytest.approx(less.high, abs=1e-9)
    assert rate.lower_bound(confidence) == pytest.approx(greater.low, abs=1e-9)


@given(rates())
def test_failures_mirror_successes(rate: Rate) -> None:
    mirrored = Rate(rate.trials - rate.successes, rate.trials)
    low, high = mirrored.wilson()
    assert rate.wilson() == pytest.approx((1 - high, 1 - low), abs=1e-9)
    assert rate.lower_bound() == pytest.approx(1 - mirrored.upper_bound(), abs=1e-9)


def test_nothing_tried_nothing_known() -> None:
    empty = Rate(0, 0)
    assert empty.value is None
    assert empty.rule_of_three is None
    assert empty.wilson() == empty.clopper_pearson() == (0, 1)
    assert (empty.lower_bound(), empty.upper_bound()) == (0, 1)


def test_rule_of_three_only_at_zero() -> None:
    assert Rate(0, 300).rule_of_three == pytest.approx(0.01)
    assert Rate(0, 2).rule_of_three == 1
    assert Rate(1, 300).rule_of_three is None


@pytest.mark.parametrize(("rate", "trials"), [(0.05, 59), (0.01, 299), (0.001, 2995), (0.5, 5)])
def test_trials_to_claim_is_the_smallest_that_suffices(rate: float, trials: int) -> None:
    assert trials_to_claim(rate) == trials
    assert Rate(0, trials).upper_bound() <= rate < Rate(0, trials - 1).upper_bound()


def test_impossible_values_are_refused() -> None:
    for successes, trials in ((2, 1), (-1, 3), (0, -1)):
        with pytest.raises(InputError, match="impossible"):
            Rate(successes, trials)
    for confidence in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(InputError, match="confidence"):
            Rate(1, 2).wilson(confidence)
    with pytest.raises(InputError, match="between 0 and 1"):
        trials_to_claim(0.0)
    for claim in (1.0, 1.5, -0.1):
        with pytest.raises(InputError):
            trials_to_claim(claim)


def test_the_ends_of_wilson_are_exact() -> None:
    for trials in range(1, 60):
        assert Rate(0, trials).wilson()[0] == 0
        assert Rate(trials, trials).wilson()[1] == 1


def test_one_trial_shows_what_one_can() -> None:
    # A rate above 95 % would have shown itself in the first trial.
    assert trials_to_claim(0.99) == trials_to_claim(0.95) == 1
    # 0.5^2 is 1 - 0.75 exactly: two trials, and not three because of a last digit.
    assert trials_to_claim(0.5, 0.75) == 2


def test_every_confidence_is_95_percent_unless_it_is_told() -> None:
    rate = Rate(3, 40)
    assert rate.wilson() == rate.wilson(0.95) != rate.wilson(0.9)
    assert rate.clopper_pearson() == rate.clopper_pearson(0.95) != rate.clopper_pearson(0.9)
    assert rate.upper_bound() == rate.upper_bound(0.95) != rate.upper_bound(0.9)
    assert rate.lower_bound() == rate.lower_bound(0.95) != rate.lower_bound(0.9)
    assert trials_to_claim(0.01) == trials_to_claim(0.01, 0.95) != trials_to_claim(0.01, 0.9)


def test_every_bound_checks_its_confidence() -> None:
    for bound in (Rate(1, 2).clopper_pearson, Rate(1, 2).upper_bound, Rate(1, 2).lower_bound, Rate(0, 0).wilson):
        with pytest.raises(InputError):
            bound(1.0)
    with pytest.raises(InputError):
        trials_to_claim(0.1, 1.0)
