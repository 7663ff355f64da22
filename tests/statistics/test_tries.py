"""Success within k tries: by hand, against every choice of tries, and without bias."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.statistics.intervals import Rate, wilson
from toolkit.statistics.tries import hit_rate


@pytest.mark.parametrize(("tries", "expected"), [(1, 0.3), (2, 1 - 7 * 6 / (10 * 9)), (3, 1 - 35 / 120), (10, 1.0)])
def test_three_hits_in_ten(tries: int, expected: float) -> None:
    found = hit_rate(np.array([3]), 10, tries)
    assert found is not None
    assert (found.tries, found.value) == (tries, pytest.approx(expected))


def test_it_is_the_share_of_all_choices_of_tries_that_have_a_hit() -> None:
    passed = np.array([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]], bool)
    for tries in range(1, 7):
        chosen = [passed[:, list(places)].any(axis=1) for places in itertools.combinations(range(6), tries)]
        found = hit_rate(passed.sum(axis=1), 6, tries)
        assert found is not None
        assert found.value == pytest.approx(float(np.mean(chosen)))


def test_it_has_no_bias_where_counting_the_first_tries_has_none() -> None:
    chance, rng = 0.2, np.random.default_rng(0)
    passed = rng.random((20_000, 10)) < chance
    found = hit_rate(passed.sum(axis=1), 10, 3)
    assert found is not None
    assert found.value == pytest.approx(1 - (1 - chance) ** 3, abs=0.01)
    assert found.low < 1 - (1 - chance) ** 3 < found.high


def test_the_interval_is_that_of_whole_successes_where_they_are_whole() -> None:
    found = hit_rate(np.array([0, 0, 10, 10, 10]), 10, 3)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(Rate(3, 5).wilson())
    assert wilson(0.0, 5)[0] == 0.0
    assert wilson(2.5, 5)[0] < 0.5 < wilson(2.5, 5)[1]


def test_no_pairs_say_nothing_and_more_tries_than_presentations_are_refused() -> None:
    assert hit_rate(np.array([], np.int64), 10, 3) is None
    for tries in (0, 11):
        with pytest.raises(InputError, match="cannot be estimated from 10 presentations"):
            hit_rate(np.array([1]), 10, tries)
