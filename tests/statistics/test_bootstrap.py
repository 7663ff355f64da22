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
