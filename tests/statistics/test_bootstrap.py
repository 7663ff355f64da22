from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy import stats

from tests.statistics.test_verification import DISTANCES, GENUINE, gaussian_pairs
from toolkit.errors import InputError, InsufficientError
from toolkit.statistics.bootstrap import det_band, identity_bootstrap
from toolkit.statistics.verification import fnmr_at_fmr


def test_identity_bootstrap_is_wider_than_its_pairs_suggest() -> None:
    """Ten people, fifty pairs each, two of whom always fail: two of ten is what is known, not 100 of 500."""
    people = np.repeat(np.arange(10), 50)
    distances, genuine = np.where(people < 2, 2.0, 0.0), np.ones(500, bool)
    low, high = identity_bootstrap(
        distances, genuine, people, people, threshold=1.0, statistic="fnmr", rng=np.random.default_rng(0)
    )
    # The multiplicities of the two are binomial(10, 0.2) together.
    assert (low, high) == pytest.approx(tuple(stats.binom.interval(0.95, 10, 0.2) / np.array(10)), abs=1e-9)


def test_impostor_pairs_weigh_the_product_of_their_people() -> None:
    """Five people are drawn; pair (0, 1) errs and (2, 3) does not, so 2 x 1 against 1 x 1 gives 2/3, and so on."""
    probes, references = np.array([0, 2, 4]), np.array([1, 3, 4])
    distances, genuine = np.array([0.0, 2.0, 0.0]), np.array([False, False, True])
    seen = set()
    for seed in range(600):
        # Draws without an impostor pair say nothing.
        with contextlib.suppress(InsufficientError):
            only, same = identity_bootstrap(
                distances,
                genuine,
                probes,
                references,
                threshold=1.0,
                statistic="fmr",
                rng=np.random.default_rng(seed),
                draws=1,
            )
            assert only == same
            seen.add(round(only, 9))
    assert seen == {0.0, round(1 / 3, 9), 0.5, round(2 / 3, 9), 1.0}


def test_accuracy_bootstrap_holds_the_accuracy() -> None:
    rng = np.random.default_rng(1)
    probes = rng.integers(40, size=600)
    references = np.where(np.arange(600) % 2, probes, (probes + 1 + rng.integers(39, size=600)) % 40)
    genuine = probes == references
    distances = rng.normal(size=600) + np.where(genuine, 0, 2.0)
    low, high = identity_bootstrap(
        distances, genuine, probes, references, threshold=1.0, statistic="accuracy", rng=np.random.default_rng(2)
    )
    assert low < ((distances < 1) == genuine).mean() < high
    again = identity_bootstrap(
        distances, genuine, probes, references, threshold=1.0, statistic="accuracy", rng=np.random.default_rng(2)
    )
    assert again == (low, high)


def test_contradictory_identities_are_refused() -> None:
    ones = np.ones(len(DISTANCES), np.int64)
    with pytest.raises(InputError, match="4 pairs have identities"):
        identity_bootstrap(DISTANCES, GENUINE, ones, ones, threshold=1.0, statistic="fmr", rng=np.random.default_rng(0))


def test_the_curve_is_the_fnmr_at_fixed_fmr() -> None:
    distances, genuine = gaussian_pairs(300, 1.5)
    distances = np.round(distances, 1)  # ties
    det = det_band(distances, genuine, None, rng=np.random.default_rng(0), draws=20)
    assert det is not None
    for fmr, fnmr, low, high in zip(det.fmr, det.fnmr, det.low, det.high, strict=True):
        point = fnmr_at_fmr(distances, genuine, fmr)
        assert point is not None
        assert fnmr == pytest.approx(point.fnmr.value)
        assert low <= high
    assert det.fmr[0] == pytest.approx(3 / 300)
    assert list(det.fnmr) == sorted(det.fnmr, reverse=True)


def test_the_band_covers_the_truth_as_often_as_it_says() -> None:
    """Two Gaussians 2 apart: the FNMR at FMR f is Phi(-2 - Phi^-1(f)), by hand."""
    covered = []
    for seed in range(60):
        distances, genuine = gaussian_pairs(300, 2.0, seed)
        det = det_band(distances, genuine, None, rng=np.random.default_rng(seed), points=5, draws=200)
        assert det is not None
        truth = stats.norm.sf(2 + stats.norm.ppf(det.fmr))
        covered.append((np.array(det.low) <= truth) & (truth <= np.array(det.high)))
    share = np.mean(covered, axis=0)
    # The first point rests on three false matches, of which no bootstrap makes a good interval.
    assert (share[1:] >= 0.85).all(), share


def test_people_in_many_pairs_widen_the_band() -> None:
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(20), 20)
    trait = rng.normal(size=20)[person]  # a person's pairs err together
    distances = np.concatenate([trait + 0.2 * rng.normal(size=400), rng.normal(size=400) + 2])
    genuine = np.arange(800) < 400
    probes = np.concatenate([person, np.arange(100, 500)])
    references = np.concatenate([person, np.arange(500, 900)])
    widths = []
    for people in (None, (probes, references)):
        det = det_band(distances, genuine, people, rng=np.random.default_rng(0), draws=200)
        assert det is not None
        assert det.unit == ("pairs" if people is None else "people")
        widths.append(det.high[12] - det.low[12])
    assert widths[1] > 1.5 * widths[0]


def test_no_miss_is_not_no_risk() -> None:
    distances, genuine = gaussian_pairs(50, 20.0)
    det = det_band(distances, genuine, None, rng=np.random.default_rng(0), draws=20)
    assert det is not None
    assert set(det.fnmr) == {0.0}
    assert det.high == pytest.approx([0.0711] * 25, abs=1e-4), "Clopper and Pearson's bound of 0 in 50"


def test_no_curve_without_impostors_to_show_it() -> None:
    distances, genuine = gaussian_pairs(5, 2.0)
    assert det_band(distances, genuine, None, rng=np.random.default_rng(0)) is None
    ones = np.ones(20, np.int64)
    with pytest.raises(InputError, match="contradict"):
        det_band(*gaussian_pairs(10, 2.0), (ones, ones), rng=np.random.default_rng(0))


def fnmr_interval(distances: list[float], genuine: list[bool], people: list[int], **others: object) -> tuple:
    """Genuine pairs are of the person told, impostor pairs of two strangers that nobody else is."""
    named = np.array(people)
    references = np.where(genuine, named, named + 100)
    arguments = {"threshold": 1.0, "statistic": "fnmr", "rng": np.random.default_rng(0)} | others
    return identity_bootstrap(np.array(distances), np.array(genuine), named, references, **arguments)


def test_a_distance_at_the_threshold_is_another_person() -> None:
    assert fnmr_interval([1.0, 1.0], [True, True], [0, 1]) == (1, 1)
    assert fnmr_interval([1.0, 1.0], [False, False], [0, 1], statistic="fmr") == (0, 0)
    assert fnmr_interval([1.0, 1.0], [True, True], [0, 1], statistic="accuracy") == (0, 0)


def test_an_interval_is_of_1000_draws_and_95_percent_unless_it_is_told() -> None:
    # People in unequally many pairs, so that no two draws give the same share.
    people = np.repeat(np.arange(12), np.arange(1, 13))
    distances, genuine = 2 * np.random.default_rng(0).random(len(people)), [True] * len(people)
    default = fnmr_interval(distances, genuine, people)
    assert default == fnmr_interval(distances, genuine, people, draws=1000, confidence=0.95)
    assert default != fnmr_interval(distances, genuine, people, draws=1001)
    narrow = fnmr_interval(distances, genuine, people, confidence=0.5)
    assert default[0] < narrow[0] < narrow[1] < default[1]


def test_one_draw_is_one_resample_of_the_people() -> None:
    # Three people of whom one fails: as often as it was drawn, of three.
    seen = {
        fnmr_interval([0.0, 0.0, 2.0], [True] * 3, [0, 1, 2], draws=1, rng=np.random.default_rng(seed))[0]
        for seed in range(200)
    }
    assert sorted(seen) == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_bootstrap_of_nothing_is_refused() -> None:
    for others in ({"draws": 0}, {"confidence": 0.0}, {"confidence": 1.0}, {"statistic": "eer"}):
        with pytest.raises(InputError):
            fnmr_interval([0.0, 2.0], [True, True], [0, 1], **others)
    with pytest.raises(InsufficientError):
        fnmr_interval([0.0, 2.0], [False, False], [0, 1])
    with pytest.raises(InsufficientError):
        fnmr_interval([0.0, 2.0], [True, True], [0, 1], statistic="fmr")


@pytest.mark.parametrize("short", [0, 1])
def test_every_pair_has_both_of_its_people(short: int) -> None:
    people = [np.arange(8), np.where(GENUINE, np.arange(8), np.arange(8) + 100)]
    people[short] = people[short][:-1]
    with pytest.raises(InputError):
        identity_bootstrap(DISTANCES, GENUINE, *people, threshold=1.0, statistic="fmr", rng=np.random.default_rng(0))


def test_the_curve_runs_from_three_false_matches_to_half_of_the_impostors() -> None:
    distances, genuine = gaussian_pairs(60, 2.0)
    det = det_band(distances, genuine, None, rng=np.random.default_rng(0), draws=20)
    assert det is not None
    assert len(det.fmr) == 25
    assert (det.fmr[0], det.fmr[-1]) == pytest.approx((3 / 60, 0.5))
    assert np.diff(np.log(det.fmr)) == pytest.approx(np.full(24, np.log(10) / 24)), "evenly on a logarithmic scale"


def test_a_band_is_of_500_draws_and_95_percent_unless_it_is_told() -> None:
    pairs = gaussian_pairs(40, 1.5)
    default = det_band(*pairs, None, rng=np.random.default_rng(0))
    assert default == det_band(*pairs, None, rng=np.random.default_rng(0), points=25, draws=500, confidence=0.95)
    narrow = det_band(*pairs, None, rng=np.random.default_rng(0), confidence=0.5)
    assert default is not None
    assert narrow is not None
    assert (default.confidence, narrow.confidence) == (0.95, 0.5)
    assert all(a <= b <= c <= d for a, b, c, d in zip(default.low, narrow.low, narrow.high, default.high, strict=True))
    assert default.low[12] < narrow.low[12] < narrow.high[12] < default.high[12]


@pytest.mark.parametrize(("missed", "pairs"), [(1, 50), (7, 40)])
def test_the_same_misses_at_every_threshold_have_the_band_of_their_binomial(missed: int, pairs: int) -> None:
    """Some genuine pairs are beyond all impostors, the others before: each draw misses them as often as drawn."""
    distances = np.concatenate([np.zeros(pairs - missed), np.full(missed, 10.0), np.linspace(4, 6, 50)])
    genuine = np.arange(len(distances)) < pairs
    det = det_band(distances, genuine, None, rng=np.random.default_rng(1), draws=10_000)
    assert det is not None
    assert det.fnmr == pytest.approx([missed / pairs] * 25)
    low, high = stats.binom.ppf([0.025, 0.975], pairs, missed / pairs) / pairs
    assert (det.low, det.high) == (pytest.approx([low] * 25), pytest.approx([high] * 25))


def test_the_bound_where_nothing_is_missed_has_the_confidence_asked_for() -> None:
    det = det_band(*gaussian_pairs(50, 20.0), None, rng=np.random.default_rng(0), draws=20, confidence=0.8)
    assert det is not None
    # Closed form, two-sided: (1 - p)^50 = 10 %.
    assert det.high == pytest.approx([1 - 0.1 ** (1 / 50)] * 25)


@pytest.mark.parametrize(("distance", "missed"), [(1.0, 0.0), (5.0, 1.0)])
def test_draws_without_a_kind_of_pair_are_left_out(distance: float, missed: float) -> None:
    """One genuine pair of one person, and impostors of others: many draws leave the one or the others out."""
    distances, genuine = np.array([distance, *np.linspace(2, 3, 6)]), np.arange(7) < 1
    people = np.arange(7), np.array([0, *range(7, 13)])
    with np.errstate(all="raise"):
        bands = [det_band(distances, genuine, people, rng=np.random.default_rng(seed), draws=1) for seed in range(999)]
    assert any(band is None for band in bands)
    found = [band for band in bands if band is not None]
    assert found
    # The one genuine pair is nearer than all impostors, or further, in whatever draw it is in.
    assert all(set(band.low) == {missed} for band in found)


def test_where_all_impostors_are_nearest_nobody_gets_in() -> None:
    det = det_band(np.repeat([0.0, 1.0], 10), np.arange(20) >= 10, None, rng=np.random.default_rng(0), draws=5)
    assert det is not None
    assert set(det.fnmr) == set(det.low) == set(det.high) == {1.0}


def test_errors_mirror_what_is_right() -> None:
    """The share that is missed and the share that is not are one whole in every draw, so in every quantile."""
    people = np.repeat(np.arange(12), np.arange(1, 13))
    distances = np.random.default_rng(0).random(len(people))
    bounds = [
        fnmr_interval(list(values), [True] * len(people), people, threshold=0.3)
        for values in (distances, 0.6 - distances)
    ]
    assert bounds[0] == pytest.approx((1 - bounds[1][1], 1 - bounds[1][0]))


def test_a_curve_needs_six_impostors_and_a_genuine_pair() -> None:
    def band(genuine: int, impostors: int) -> object:
        distances = np.arange(float(genuine + impostors))
        return det_band(distances, distances < genuine, None, rng=np.random.default_rng(0), draws=5)

    assert band(1, 6) is not None
    assert band(1, 5) is None
    assert band(0, 9) is None
    assert band(9, 0) is None
