"""Thresholds whose rate is bounded: exact order statistics, people who repeat, and a coverage that is simulated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from toolkit.errors import InputError, InsufficientError
from toolkit.statistics import bounded
from toolkit.statistics.bootstrap import people_draws
from toolkit.statistics.bounded import Bound, Members, bound_at, bounded_threshold, rounded_down
from toolkit.statistics.calibration import calibrate
from toolkit.statistics.intervals import Rate, trials_to_claim

CONFIDENCE = 0.95


def ranks(n: int) -> np.ndarray:
    """Values whose every order statistic is its own place, counted from 1."""
    return np.arange(1.0, n + 1)


@given(st.integers(20, 3000), st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_independent_trials_get_the_order_statistic_of_the_beta_distribution(
    n: int, rate: float, confidence: float
) -> None:
    """The k-th smallest of n accepts a true share that is Beta(k, n - k + 1)."""
    if n < trials_to_claim(rate, confidence):
        with pytest.raises(InsufficientError, match=f"at least {trials_to_claim(rate, confidence)} trials.*are {n}"):
            bounded_threshold(ranks(n), None, rate, confidence)
        return
    threshold, bound = bounded_threshold(ranks(n), None, rate, confidence)
    k = round(threshold)
    assert stats.beta(k, n - k + 1).cdf(rate) >= confidence > stats.beta(k + 1, n - k).cdf(rate)
    assert bound.upper == bound.independent == pytest.approx(Rate(k - 1, n).upper_bound(confidence))
    assert (bound.binding, bound.effective, bound.bootstrap, bound.units) == ("independent", None, None, None)
    assert (bound.trials, bound.effective_trials, bound.unit, bound.confidence) == (n, n, None, confidence)


def true_rates(sample: object, rate: float, draws: int, point: bool = False) -> tuple[np.ndarray, int]:
    """The true rate, above the target or not, at the thresholds of many simulated samples; and how many are refused."""
    rng, found, refused = np.random.default_rng(0), [], 0
    for _ in range(draws):
        values, people = sample(rng)  # type: ignore[operator]
        distances, genuine = np.append(values, 5.0), np.append(np.zeros(len(values), bool), True)
        members = Members("people", tuple(np.append(p, -1) for p in people))
        try:
            result = calibrate(distances, genuine, rate, CONFIDENCE, members, point_estimate=point, draws=60)
            found.append(result.chosen.threshold)
        except InsufficientError:
            refused += 1
    return stats.norm.cdf(np.array(found), 10), refused


def strangers(n: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Impostor pairs of people who are in one pair each."""
    return rng.normal(10, 1, n), (np.arange(n), np.arange(n, 2 * n))


def company(n: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Impostor pairs of 60 people, each near to or far from everybody, with the same distances as `strangers`."""
    people, shared = 60, 0.6
    first = rng.integers(people, size=n)
    second = (first + rng.integers(1, people, size=n)) % people
    trait = rng.normal(0, np.sqrt(shared / 2), people)
    return 10 + trait[first] + trait[second] + rng.normal(0, np.sqrt(1 - shared), n), (first, second)


def exceeded(rates: np.ndarray, target: float, refused: int) -> float:
    return float(np.sum(rates > target)) / (len(rates) + refused)


def margin(draws: int) -> float:
    """5 %, and three standard errors of a simulation."""
    return 0.05 + 3 * float(np.sqrt(0.05 * 0.95 / draws))


def test_the_true_rate_of_independent_pairs_is_above_the_target_in_at_most_5_percent_of_draws() -> None:
    draws, target = 200, 0.01
    rates, refused = true_rates(lambda rng: strangers(330, rng), target, draws)
    assert refused < 0.1 * draws
    assert exceeded(rates, target, refused) <= margin(draws)
    assert rates.mean() > 0.1 * target, "not by accepting nobody"
    # The point estimate, for which a threshold was once taken, is above the target in most draws.
    rates, refused = true_rates(lambda rng: strangers(330, rng), target, draws, point=True)
    assert exceeded(rates, target, refused) > 0.5


def test_the_true_rate_of_people_who_repeat_is_above_the_target_in_at_most_5_percent_of_draws() -> None:
    draws, target = 200, 0.05
    rates, refused = true_rates(lambda rng: company(1000, rng), target, draws)
    assert refused < 0.1 * draws
    assert exceeded(rates, target, refused) <= margin(draws)
    assert rates.mean() > 0.2 * target
    # Pairs that are taken for independent ones do not hold it, and the point estimate less so.
    rng = np.random.default_rng(0)
    alone = [bounded_threshold(company(1000, rng)[0], None, target)[0] for _ in range(draws)]
    assert exceeded(stats.norm.cdf(np.array(alone), 10), target, 0) > margin(draws)
    rates, refused = true_rates(lambda rng: company(1000, rng), target, draws, point=True)
    assert exceeded(rates, target, refused) > 0.5


def test_299_pairs_of_strangers_are_the_fewest_for_1_percent() -> None:
    people = Members("people", (np.arange(299), np.arange(299, 598)))
    threshold, bound = bounded_threshold(ranks(299), people, 0.01)
    assert (threshold, bound.effective_trials, bound.units) == (1.0, 299, 598)
    assert bound.upper == pytest.approx(1 - 0.05 ** (1 / 299))
    with pytest.raises(InsufficientError, match=r"0\.01 at a confidence of 95 % needs at least 299 .* there are 298"):
        bounded_threshold(ranks(298), None, 0.01)


def test_copies_of_pairs_tell_nothing_more() -> None:
    """Each of 400 pairs thirty times is 400 pairs, whichever side each person is on."""
    once, times = np.random.default_rng(1).permutation(ranks(400)), 30
    first, second = np.arange(400), np.arange(400, 800)
    flipped = np.arange(times) % 2 == 0
    people = Members("people", tuple(
        np.where(flipped, a[:, None], b[:, None]).ravel() for a, b in ((first, second), (second, first))
    ))  # fmt: skip
    _, bound = bounded_threshold(np.repeat(once, times), people, 0.01)
    assert bound.effective_trials == pytest.approx(400, rel=0.01)
    assert bound.binding == "effective"


def test_too_few_people_are_refused_however_many_their_pairs() -> None:
    first, second = np.tile(np.arange(4), 250), np.tile([1, 2, 3, 0], 250)
    trait = np.array([0.0, 5.0, 5.0, 5.0])
    values = 1 + trait[first] + trait[second] + np.linspace(0, 1, 1000)
    with pytest.raises(InsufficientError, match=r"at least 299 independent .* share people .* of more people"):
        bounded_threshold(values, Members("people", (first, second)), 0.01)


def test_one_person_in_each_trial_is_a_cluster() -> None:
    """100 people with ten crops each that have one score: 100 trials of Rate, not 1,000."""
    values, people = np.repeat(ranks(100), 10), np.repeat(np.arange(100), 10)
    threshold, bound = bounded_threshold(values, Members("people", (people,)), 0.05)
    uncertain = (stats.t.ppf(0.95, 99) / stats.t.ppf(0.95, 999)) ** 2
    assert bound.effective_trials == pytest.approx(100 / uncertain)
    assert bound.effective == pytest.approx(
        stats.beta.ppf(0.95, (threshold - 1) / uncertain + 1, (101 - threshold) / uncertain)
    )


def test_the_bootstrap_is_the_binding_rule_where_it_is_the_strictest() -> None:
    n = 4000
    people = Members("people", (np.arange(n), np.arange(n, 2 * n)))
    threshold, bound = bounded_threshold(ranks(n), people, 0.05)
    assert bound.binding == "bootstrap"
    assert bound.bootstrap is not None
    assert bound.upper == bound.bootstrap <= 0.05
    # Weights of products of two multiplicities of mean 1 and variance 1 have variance 3.
    accepted = threshold - 1
    assert bound.bootstrap == pytest.approx((accepted + 1.645 * np.sqrt(3 * accepted)) / n, rel=0.05)
    assert bounded_threshold(ranks(n), people, 0.05) == (threshold, bound), "the seed is fixed"
    at = bound_at(ranks(n), people, threshold, 0.05)
    assert (at.upper, at.binding) == (bound.upper, None)


def test_equal_values_are_accepted_together_or_not_at_all() -> None:
    values = np.round(np.random.default_rng(2).normal(10, 1, 2000), 1)
    people = (np.arange(2000), np.arange(2000, 4000))
    results = []
    for order in (np.arange(2000), np.random.default_rng(3).permutation(2000)):
        members = Members("people", (people[0][order], people[1][order]))
        results.append(bounded_threshold(values[order], members, 0.05)[0])
    assert results[0] == results[1]
    assert Rate(int(np.sum(values < results[0])), 2000).upper_bound() <= 0.05
    constant, bound = bounded_threshold(np.full(500, 3.0), None, 0.05)
    assert (constant, bound.upper) == (3.0, pytest.approx(1 - 0.05 ** (1 / 500)))


@given(st.floats(1e-6, 1e6))
def test_a_threshold_that_is_copied_is_not_larger(value: float) -> None:
    down = rounded_down(value)
    assert value * (1 - 1e-5) <= down <= value
    assert float(f"{down:.6g}") == down


def test_small_differences_are_rounded_to_the_safe_side() -> None:
    values = 1 + 1e-9 * ranks(400)
    threshold, bound = bounded_threshold(values, None, 0.05)
    assert threshold == 1.0
    assert bound.upper == pytest.approx(Rate(0, 400).upper_bound())


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_wrong_arguments_are_refused(rate: float) -> None:
    with pytest.raises(InputError, match="target rate"):
        bounded_threshold(ranks(500), None, rate)


def test_wrong_arrays_are_refused() -> None:
    for confidence in (0.4, 1.0, 1.5):
        with pytest.raises(InputError, match="confidence"):
            bounded_threshold(ranks(500), None, 0.05, confidence)
        with pytest.raises(InputError, match=r"confidence is .* at least 0\.5 and below 1"):
            bound_at(ranks(500), None, 3.0, 0.05, confidence)
    with pytest.raises(InputError, match="finite"):
        bounded_threshold(np.append(ranks(500), np.nan), None, 0.05)
    with pytest.raises(InputError, match="needs its people"):
        bounded_threshold(ranks(500), Members("people", (np.arange(499),)), 0.05)


def test_a_rate_that_is_itself_the_bound_is_held() -> None:
    for n, accepted in ((300, 4), (1000, 20), (77, 0)):
        rate = Rate(accepted, n).upper_bound()
        assert bounded_threshold(ranks(n), None, rate)[0] == accepted + 1


@pytest.mark.parametrize(("n", "supported"), [(0, "1"), (1, "0.95"), (2, "0.78")])
def test_the_fewest_trials_say_what_they_support(n: int, supported: str) -> None:
    message = f"but there are {n}; these support a rate of {supported} at best"
    with np.errstate(all="raise"), pytest.raises(InsufficientError, match=message):
        bounded_threshold(ranks(n), None, 0.05)


def test_what_all_and_what_none_of_the_trials_show() -> None:
    people = Members("images", (np.arange(50), np.arange(50, 100)))
    everything = bound_at(ranks(50), people, 51.0, 0.05)
    assert (everything.upper, everything.independent, everything.effective, everything.bootstrap) == (1, 1, 1, 1)
    assert (everything.trials, everything.unit, everything.units) == (50, "images", 100)
    nothing = bound_at(ranks(50), people, 1.0, 0.05)
    assert nothing.bootstrap == 0
    assert nothing.upper == nothing.independent == pytest.approx(Rate(0, 50).upper_bound())


def test_trials_that_do_not_differ_tell_of_no_design() -> None:
    few = Members("people", (np.arange(40) % 2,))
    assert bound_at(np.full(40, 3.0), few, 3.0, 0.05).effective_trials == 40


def design(values: np.ndarray, members: tuple[np.ndarray, ...], rate: float, confidence: float) -> float:
    """The variance of a share over that of independent trials, summed over all pairs of trials that share somebody."""
    n, rising = len(values), np.sort(values)
    count = min(max(3, int(np.floor(rate * n + 1e-9))), n - 1)
    accepted = (values < rising[count]) if (values < rising[count]).any() else (values == rising[0])
    error = accepted - accepted.mean()
    who = [set(people) for people in zip(*(m.tolist() for m in members), strict=True)]
    shared = sum(error[i] * error[j] for i in range(n) for j in range(n) if who[i] & who[j])
    units = len(set().union(*who))
    few = stats.t.ppf(max(confidence, 0.75), max(units - 1, 1)) / stats.t.ppf(max(confidence, 0.75), n - 1)
    return float(max(1.0, shared / np.sum(error**2)) * max(1.0, few**2))


@given(
    st.integers(3, 40), st.integers(1, 8), st.sampled_from([0.05, 0.25, 0.5, 0.9]), st.integers(0, 999), st.booleans()
)
def test_the_design_effect_is_the_sum_over_all_pairs_of_trials_that_share_somebody(
    n: int, people: int, rate: float, seed: int, pairs: bool
) -> None:
    rng = np.random.default_rng(seed)
    # With ties, at the smallest value too.
    values = np.floor(rng.uniform(1, 1 + rng.choice([3, 100]), n))
    first = rng.integers(people, size=n)
    members = (first, first + rng.integers(1, people + 1, n)) if pairs else (first,)
    found = bound_at(values, Members("people", members), 2.0, rate, 0.7 if seed % 2 else 0.95)
    if len(np.unique(values)) > 1:
        assert n / found.effective_trials == pytest.approx(design(values, members, rate, found.confidence))


def test_the_design_effect_is_that_of_the_target_rate_and_of_people_on_either_side() -> None:
    """Of 100 trials five are accepted at 5 %: the first four and the sixth show one person, the fifth another."""
    people = np.arange(100)
    people[[0, 1, 2, 3, 5]] = 0
    for members in ((people,), (people, np.arange(200, 300)), (np.arange(200, 300), people)):
        found = bound_at(ranks(100), Members("people", members), 3.0, 0.05)
        assert 100 / found.effective_trials == pytest.approx(design(ranks(100), members, 0.05, 0.95))


def shares(draws: int, seed: int, people: int, members: tuple[np.ndarray, ...]) -> np.ndarray:
    """For every draw of people the weighted share of each number of the smallest values (draws, n + 1)."""
    found = []
    for times in people_draws(people, np.random.default_rng(seed), draws):
        weight = np.prod([times[m] for m in members], axis=0)
        if weight.sum():
            found.append(np.append(0, np.cumsum(weight)) / weight.sum())
    return np.array(found)


def test_the_bootstrap_takes_the_largest_count_that_enough_draws_hold() -> None:
    """19 of 20 draws are 95 %, neither 18 nor 20 of them."""
    n = 400
    members = (np.arange(n) % 300, 300 + np.arange(n))
    for seed in (0, 2):
        threshold, bound = bounded_threshold(
            ranks(n), Members("people", members), 0.05, seed=seed, draws=20, confidence=CONFIDENCE
        )
        count, drawn = round(threshold) - 1, shares(20, seed, 700, members)
        assert len(drawn) == 20
        held = (drawn <= 0.05).mean(0)
        assert bound.bootstrap is not None
        assert bound.bootstrap == pytest.approx(np.sort(drawn[:, count])[18])
        assert held[count] >= 0.95
        assert bound.binding == "bootstrap"
        assert held[count + 1] < 0.95
        assert bound == bounded_threshold(ranks(n), Members("people", members), 0.05, seed=seed, draws=20)[1]


def test_of_two_people_the_draws_are_three() -> None:
    """Either one twice, each in a quarter of the draws, or both, where half of the weight is accepted."""
    two = Members("people", (np.array([0, 1]),))

    def at(confidence: float, threshold: float = 1.5) -> Bound:
        return bound_at(np.array([1.0, 2.0]), two, threshold, 0.5, confidence, draws=4000)

    assert [at(confidence).bootstrap for confidence in (0.6, 0.7, 0.8)] == [0.5, 0.5, 1.0]


def test_without_draws_the_other_rules_are_left() -> None:
    people = Members("people", (np.arange(400),))
    threshold, bound = bounded_threshold(ranks(400), people, 0.05, draws=0)
    assert (bound.bootstrap, bound.binding) == (None, "independent")
    assert threshold == bounded_threshold(ranks(400), None, 0.05)[0]


def test_a_rate_that_half_of_the_weight_has_is_held() -> None:
    """Three quarters of the draws of two people accept one of two values: 50 % is no more than 50 %."""
    sample = bounded._Sample(np.array([1.0, 2.0]), Members("people", (np.array([0, 1]),)), 0.5, 0.7, 0, 4000)
    assert bounded._bootstrapped_count(sample, 2) == 1
