"""Warnings about a run's data: known answers for each, and silence about data that are in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.risk.runs import Told, told_run
from toolkit.audit.results.outcomes import CleanOutcomes, Run
from toolkit.audit.results.suspicions import suspicions
from toolkit.statistics.intervals import Rate


@pytest.fixture
def run() -> Run:
    """Ten genuine and ten impostor pairs of images that occur once, all decided correctly by one profile."""
    told = told_run([Told("gaussian", "zero", "none")], pairs=10, profiles=["none"])
    distances = np.where(told.genuine, 0.5, 2.0) + np.linspace(0, 0.1, 20)
    return replace(told, clean=(CleanOutcomes("none", distances, np.ones(20, bool)),))


def clean(run: Run, distances: object = None, correct: object = None) -> Run:
    (was,) = run.clean
    values = was.distances if distances is None else np.asarray(distances, float)
    right = was.correct if correct is None else np.asarray(correct, bool)
    return replace(run, clean=(CleanOutcomes("none", values, right),))


def paired(run: Run, *pairs: tuple[str, str, bool]) -> Run:
    """The run with other pairs, all decided correctly at distances that differ."""
    genuine = np.array([same for *_, same in pairs])
    ids = tuple(f"{a}|{b}|{'genuine' if same else 'impostor'}" for a, b, same in pairs)
    distances = np.where(genuine, 0.5, 2.0) + np.linspace(0, 0.1, len(pairs))
    return clean(replace(run, pairs=ids, genuine=genuine), distances, np.ones(len(pairs)))


def codes(run: Run) -> list[str]:
    return [s.code for s in suspicions(run)]


def test_data_in_order_raise_no_suspicion(run: Run) -> None:
    assert suspicions(run) == ()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.7])
def test_constant_distances_are_degenerate(run: Run, value: float) -> None:
    found = suspicions(clean(run, np.full(20, value)))
    assert found[0].code == "degenerate-embeddings"
    assert f"all 20 clean distances are {value:g};" in found[0].text
    assert "profile none" in found[0].text
    nearly = clean(run, value + 1e-9 * np.arange(20))
    assert codes(nearly) == ["degenerate-embeddings"], "rounding errors tell no images apart"
    assert codes(clean(run, value + 1e-3 * np.arange(20))) == []


def test_distances_that_are_no_numbers_are_degenerate(run: Run) -> None:
    d = run.clean[0].distances.copy()
    d[[3, 4]] = np.nan, np.inf
    (found,) = suspicions(clean(run, d))
    assert (found.code, "2 of 20 clean distances are not numbers" in found.text) == ("degenerate-embeddings", True)
    assert codes(clean(run, np.full(20, np.nan))) == ["degenerate-embeddings"]


def test_labels_are_swapped_below_one_half(run: Run) -> None:
    assert codes(clean(run, correct=np.arange(20) % 2)) == [], "one half is no less than chance"
    wrong = np.arange(20) % 2
    wrong[1] = 0
    (found,) = suspicions(clean(run, correct=wrong))
    assert (found.code, "only 9 of 20 clean pairs" in found.text) == ("swapped-labels", True)
    assert "swapped-labels" in codes(clean(run, correct=np.zeros(20)))


def test_a_verifier_that_accepts_or_refuses_everybody(run: Run) -> None:
    assert codes(clean(run, correct=run.genuine)) == ["accepts-all"]
    assert codes(clean(run, correct=~run.genuine)) == ["refuses-all"]
    one_wrong = run.genuine.copy()
    one_wrong[-1] = True
    assert codes(clean(run, correct=one_wrong)) == []
    only_genuine = replace(run, genuine=np.ones(20, bool))
    assert codes(only_genuine) == [], "without impostors nobody can be accepted wrongly"


def test_each_profile_is_looked_at(run: Run) -> None:
    broken = CleanOutcomes("mean3", np.zeros(20), np.zeros(20, bool))
    found = suspicions(replace(run, clean=(*run.clean, broken)))
    assert [s.code for s in found] == ["degenerate-embeddings", "swapped-labels"]
    assert all("profile mean3" in s.text for s in found)


def test_pairs_that_repeat_in_either_order(run: Run) -> None:
    again = paired(run, ("a", "b", False), ("c", "d", False), ("b", "a", False), ("a", "b", False), ("e", "f", True),
                   ("g", "h", True), ("i", "j", True), ("k", "l", True))  # fmt: skip
    (found,) = suspicions(again)
    assert found.code == "duplicate-pairs"
    assert "2 of 8 pairs repeat" in found.text
    assert "a and b (3 times)" in found.text
    with_bars = paired(run, ("a|1", "b|2", False), ("a|2", "b|1", False), ("c", "d", True))
    assert codes(with_bars) == []


def test_an_image_against_itself(run: Run) -> None:
    (found,) = suspicions(paired(run, ("a", "a", True), ("b", "c", False), ("d", "e", True)))
    assert (found.code, found.text) == ("same-image", "1 of 3 pairs compare an image with itself, for example a")


def test_one_person_in_more_than_half_of_the_pairs(run: Run) -> None:
    """By an image, by genuine pairs that link images, and by folders."""
    others = [("p", "q", False), ("r", "s", True)]
    assert codes(paired(run, ("a", "b", False), ("a", "c", False), *others)) == [], "half is not most"
    by_image = paired(run, ("a", "b", False), ("a", "c", False), ("d", "a", False), *others)
    assert codes(by_image) == ["one-person"]
    linked = paired(run, ("a1", "a2", True), ("a2", "a3", True), ("a3", "b", False), *others)
    (found,) = suspicions(linked)
    assert "one person (of a1) is in 3 of 5 pairs" in found.text
    pairs = [("A/1", "B/1", False), ("A/2", "C/1", False), ("D/1", "A/3", False), ("E/1", "E/2", True)]
    assert codes(paired(run, *pairs)) == ["one-person"]
    assert codes(paired(run, *pairs, ("all/1", "all/2", False))) == [], "folders that labels contradict name nobody"


def test_a_group_is_not_a_person(run: Run) -> None:
    strangers = paired(run, *((f"{i}/1", "any of 3", False) for i in range(6)))
    grouped = replace(strangers, assessment=replace(run.assessment, group=3))
    assert codes(grouped) == []
    mostly = paired(run, *((f"{min(i, 2)}/{i}", "any of 3", False) for i in range(6)))
    assert codes(replace(mostly, assessment=grouped.assessment)) == ["one-person"]


@pytest.mark.parametrize(("alarms", "expected"), [(2, []), (3, ["detector-alarms"])])
def test_a_detector_that_flags_more_than_a_tenth(run: Run, alarms: int, expected: list[str]) -> None:
    (judged,) = run.assessment.clean
    watched = replace(judged, false_alarm=Rate(alarms, 20))
    found = suspicions(replace(run, assessment=replace(run.assessment, clean=(watched,))))
    assert [s.code for s in found] == expected
    assert all("flags 3 of 20 clean crops, more than 10 %" in s.text for s in found)
