"""A plan is shown and measured before anything is done, and its numbers hold afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.progress import Silent
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.square import Square
from toolkit.audit.estimate import Span, estimate, size_of
from toolkit.audit.request import SAMPLE, Request
from toolkit.audit.run import run_audit
from toolkit.documents import to_json
from toolkit.faces.pairs import Pair, PairSet
from toolkit.faces.sampling import sample_pairs
from toolkit.profiles.profile import find_profile


def test_what_is_crafted_once_is_shown_with_all_its_replays(request_: Request) -> None:
    profiles = tuple(find_profile(name) for name in ("none", "mean3", "median3"))
    e = estimate(replace(request_, profiles=profiles), size_of(request_.crops))
    assert [(c.known, c.replayed) for c in e.crafts] == [
        ("none", (("perfect", "none"), ("zero", "mean3"), ("zero", "median3"))),
        ("mean3", (("perfect", "mean3"),)),
        ("median3", (("perfect", "median3"),)),
    ]
    assert e.scenarios == 5
    assert all(c.pairs == SAMPLE and not c.stopped for c in e.crafts)
    assert e.seconds.low <= e.seconds.expected <= (e.seconds.high or 0)
    assert json.loads(to_json(e))["kind"] == "auditestimate"


def test_the_disk_that_a_run_takes_is_within_the_estimate(request_: Request, tmp_path: Path) -> None:
    e = estimate(request_, size_of(request_.crops))
    assert list(tmp_path.glob("run*")) == []
    run_audit(request_, tmp_path / "run", Silent())
    stored = sum(path.stat().st_size for path in (tmp_path / "run" / "probes").iterdir())
    assert e.bytes.high is not None
    assert 0.8 * e.bytes.low <= stored <= 1.2 * e.bytes.high, "chunks are compressed together, the sample one by one"
    assert e.temporary_bytes >= request_.crops.images.nbytes


def test_an_estimate_grows_with_the_pairs(request_: Request) -> None:
    size = size_of(request_.crops)
    larger = replace(size, genuine=100 * size.genuine, impostor=100 * size.impostor, images=100 * size.images)
    ratio = estimate(request_, larger).bytes.expected / estimate(request_, size).bytes.expected
    assert ratio == pytest.approx(100)


def test_an_attack_that_is_stopped_has_a_bound_and_by_its_budget_an_end(request_: Request) -> None:
    both = replace(request_, attacks=(Gaussian(), Square(budget=5000)))
    e = estimate(both, size_of(request_.crops), cap=0.0)
    assert all(c.stopped and c.bytes is None for c in e.crafts)
    assert e.crafts[0].seconds.high is None
    assert e.seconds.high is None, "what is not known is not left out of the sum"
    assert e.bytes.high is None


def test_spans_of_unknown_ends_stay_unknown() -> None:
    assert Span(1, 2, 3) + Span(1, 1, None) == Span(2, 3, None)
    assert Span(1, 2, 3).times(2) == Span(2, 4, 6)
    assert Span(1, 2, None).times(2) == Span(2, 4, None)


@pytest.mark.parametrize(("genuine", "impostor"), [(100, 100), (1, 50), (0, 9), (3, 0)])
def test_a_sample_has_both_kinds_from_all_over_the_list(genuine: int, impostor: int) -> None:
    pairs = [Pair(f"p{i}", f"r{i}", i < genuine) for i in range(genuine + impostor)]
    drawn = sample_pairs(PairSet(Path(), tuple(pairs), "made up"), 2 * SAMPLE).pairs
    kinds = np.array([pair.genuine for pair in drawn])
    assert len(set(drawn)) == len(drawn) == min(2 * SAMPLE, genuine + impostor)
    assert kinds.sum() >= min(genuine, SAMPLE)
    assert (~kinds).sum() >= min(impostor, SAMPLE)
    if genuine == impostor:
        assert drawn[SAMPLE - 1] == pairs[genuine - 1]
        assert drawn[-1] == pairs[-1]
