"""Data that make every number worthless are named, and sound data are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.risk.runs import Told, told_run
from toolkit.audit.results.outcomes import Run
from toolkit.audit.results.suspicions import suspicions
from toolkit.statistics.intervals import Rate

SCENARIOS = [Told("deepfool", "perfect", "mean3")]


def run_of(**others: object) -> Run:
    return told_run(SCENARIOS, profiles=("mean3",), **others)


def codes(run: Run) -> list[str]:
    return [found.code for found in suspicions(run)]


def texts(run: Run) -> str:
    return " | ".join(found.text for found in suspicions(run))


def with_distances(run: Run, distances: Sequence[float] | np.ndarray) -> Run:
    return replace(run, clean=(replace(run.clean[0], distances=np.asarray(distances, float)),))


def with_correct(run: Run, correct: Sequence[bool] | np.ndarray) -> Run:
    return replace(run, clean=(replace(run.clean[0], correct=np.asarray(correct, bool)),))


def with_faces(run: Run, **columns: Sequence[str]) -> Run:
    return replace(run, faces=replace(run.faces, **{name: tuple(column) for name, column in columns.items()}))


def test_sound_data_are_not_suspicious() -> None:
    assert suspicions(run_of()) == ()
    assert suspicions(run_of(wrong=range(10))) == ()
    assert suspicions(run_of(people=7)) == ()
    assert suspicions(run_of(people=0)) == (), "that people have no names is no fault of the data"


def test_embeddings_that_do_not_tell_images_apart_are_degenerate() -> None:
    run = run_of(pairs=5)
    assert codes(with_distances(run, [0.25] * 10)) == ["degenerate-embeddings"]
    assert "mean3: all 10 clean distances are 0.25" in texts(with_distances(run, [0.25] * 10))
    # Distances have 6 digits, and what differs less is the same.
    assert codes(with_distances(run, [0.25, *[0.2500001] * 9])) == ["degenerate-embeddings"]
    assert codes(with_distances(run, [0.25, *[0.2501] * 9])) == []
    large = 1e4 + np.arange(10) * 1e-3
    assert codes(with_distances(run, large)) == ["degenerate-embeddings"], "it is a share of the largest distance"
    broken = with_distances(run, [np.nan, np.inf, *np.linspace(0, 1, 8)])
    assert codes(broken) == ["degenerate-embeddings"]
    assert "mean3: 2 of 10 clean distances are not numbers" in texts(broken)
    assert codes(with_distances(run, [np.nan] * 10)) == ["degenerate-embeddings"]


def test_less_than_half_correct_is_a_sign_of_swapped_labels() -> None:
    run = run_of(pairs=10)
    for right, found in ((11, []), (10, []), (9, ["swapped-labels"])):
        # Some of both kinds, so that the verifier does not accept or refuse all.
        correct = np.zeros(20, bool)
        correct[[*range(right // 2), *range(10, 10 + right - right // 2)]] = True
        assert codes(with_correct(run, correct)) == found, right
    assert "only 9 of 20 clean pairs are decided correctly" in texts(with_correct(run, correct))


def test_a_verifier_that_always_says_the_same_is_named() -> None:
    run = run_of(pairs=10)
    assert codes(with_correct(run, run.genuine)) == ["accepts-all"]
    assert "accepts all 20 clean pairs, impostors too" in texts(with_correct(run, run.genuine))
    assert codes(with_correct(run, ~run.genuine)) == ["refuses-all"]
    assert "refuses all 20 clean pairs, genuine ones too" in texts(with_correct(run, ~run.genuine))
    almost = run.genuine.copy()
    almost[10] = True
    assert codes(with_correct(run, almost)) == []
    # With pairs of one kind alone, this is what it should do.
    assert codes(replace(run, genuine=np.ones(20, bool))) == []


def test_copies_are_named_with_an_example() -> None:
    assert codes(run_of(pairs=10, copies=5)) == ["duplicate-pairs"]
    # 2 images of each kind, 5 times each.
    assert texts(run_of(pairs=10, copies=5)).startswith("16 of 20 pairs repeat the two images of another pair; p0|r0|")
    assert "occurs 5 times" in texts(run_of(pairs=10, copies=5))
    run = run_of(pairs=2)
    swapped = with_faces(run, probe_crops="abcb", reference_crops="xyzc")
    assert codes(swapped) == []
    swapped = with_faces(run, probe_crops="abcb", reference_crops="xybc")
    assert codes(swapped) == ["duplicate-pairs"]
    assert "1 of 4 pairs" in texts(swapped), "the other way round it is the same pair"


def test_an_image_that_is_compared_with_itself_is_named() -> None:
    run = with_faces(run_of(pairs=2), probe_crops="abcd", reference_crops="abxy")
    assert codes(run) == ["same-image"]
    assert texts(run) == "2 of 4 pairs compare an image with itself, for example p0|r0|genuine"


def test_a_person_who_is_in_more_than_half_of_the_pairs_is_named() -> None:
    run = run_of(pairs=3)
    half = with_faces(run, probe_people="aaabcd", reference_people="aaaefg")
    assert codes(half) == []
    more = with_faces(run, probe_people="aaabcd", reference_people="aaaefa")
    assert codes(more) == ["one-person"]
    assert texts(more) == "a is in 4 of 6 pairs; the results are about this person"
    nobody = with_faces(run, probe_people=[""] * 6, reference_people=[""] * 6)
    assert codes(nobody) == []


def test_a_detector_that_flags_clean_crops_is_named() -> None:
    def flags(count: int) -> Run:
        run = run_of()
        clean = (replace(run.assessment.clean[0], false_alarm=Rate(count, 100)),)
        return replace(run, assessment=replace(run.assessment, clean=clean))

    assert codes(flags(10)) == []
    assert codes(flags(11)) == ["detector-alarms"]
    assert "mean3: the detector flags 11 of 100 clean crops, more than 10 %" in texts(flags(11))


@pytest.mark.parametrize("profiles", [("none", "mean3"), ("mean3", "none")])
def test_the_gravest_comes_first_and_every_profile_is_looked_at(profiles: tuple[str, str]) -> None:
    run = told_run(SCENARIOS, profiles=profiles, pairs=10, copies=2, wrong=range(10, 20))
    last = replace(run.clean[1], distances=np.zeros(20))
    run = replace(run, clean=(run.clean[0], last))
    assert codes(run) == ["accepts-all", "degenerate-embeddings", "accepts-all", "duplicate-pairs"]
    named = [found.text.split(":")[0] for found in suspicions(run)[:3]]
    assert named == [f"profile {profiles[i]}" for i in (0, 1, 1)]


def test_a_run_without_pairs_or_clean_results_says_nothing() -> None:
    run = run_of(pairs=2)
    assert suspicions(replace(run, clean=())) == ()
