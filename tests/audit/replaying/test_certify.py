"""Certificates, on a verifier whose distance to the threshold is a formula, and on real faces."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from tests.models import write_linear, write_people
from toolkit.attacks.base import Task, ascent
from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.crafting.craft import pair_generator
from toolkit.audit.crafting.jobs import InProcess, Job, Ticket
from toolkit.audit.options import AuditOptions
from toolkit.audit.replaying.certificates import CertificationResult, PairCertificates, certification_results
from toolkit.audit.replaying.certify import Smoothing, _key, certify, certify_all, certify_vote
from toolkit.audit.results.outcomes import read_run
from toolkit.audit.run import audit_verifier
from toolkit.errors import UsageError
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import Pair, embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.profiles.harden import harden_verifier
from toolkit.profiles.profile import Profile, find_profile
from toolkit.progress import SILENT
from toolkit.report.assessment import print_assessment
from toolkit.statistics.certification import certified_radius, vote_radii
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.hardened import VoteOutput
from toolkit.verifiers.manifest import Decision, find_manifest, read_manifest
from toolkit.verifiers.runtime import Execution
from toolkit.verifiers.scores import distances, is_same
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.white_box import WhiteBox

SIDE = 8


def test_the_radius_of_the_paper() -> None:
    # Cohen et al. 2019: with 100,000 draws that all agree, alpha 0.001, the radius is about 3.8 sigma (their figure 5).
    assert certified_radius(Rate(100_000, 100_000), 1.0, 0.999) == pytest.approx(
        stats.norm.ppf(0.001 ** (1 / 100_000)), abs=1e-9
    )
    assert certified_radius(Rate(100_000, 100_000), 1.0, 0.999) == pytest.approx(3.8, abs=0.05)
    assert certified_radius(Rate(500, 1000), 1.0, 0.999) is None, "no majority"
    assert certified_radius(Rate(530, 1000), 1.0, 0.999) is None, "a majority that is not shown"


def linear_pairs(tmp_path: Path) -> tuple[Bench, CropSet, np.ndarray]:
    """The embedding is the mean of the pixels; probes are gray, so many levels from a reference at 128."""
    weights = np.full((SIDE * SIDE * 3, 1), 1 / (SIDE * SIDE * 3))
    manifest = read_manifest(write_linear(tmp_path, weights=weights, side=SIDE, threshold=0.1))
    levels = [128, 130, 140, 151, 152, 153, 155, 156, 165, 190]
    images = np.stack([np.full((SIDE, SIDE, 3), level, np.uint8) for level in levels])
    pairs = tuple(Pair(str(i), "0", genuine=level < 154) for i, level in enumerate(levels))
    index = np.stack([np.arange(len(levels)), np.zeros(len(levels), np.intp)], axis=1)
    crops = CropSet(images, tuple(map(str, levels)), pairs, index, ())
    # The threshold is a plane; the distance to it in L2 is that of the means times the square root of the values.
    distance = np.abs((np.array(levels) - 128) / 255 - 0.1) * np.sqrt(SIDE * SIDE * 3)
    return Bench(manifest, Execution("cpu", threads=1), 0), crops, distance


def test_no_radius_is_beyond_the_true_distance_and_most_are_near_it(tmp_path: Path) -> None:
    bench, crops, distance = linear_pairs(tmp_path)
    clean = run_clean(bench.deployed(find_profile("none")), crops, bench.manifest.decision)
    found = certify(bench, find_profile("none"), Smoothing(0.1, 4000), crops, clean, tmp_path, lambda done: None)
    genuine = np.array([pair.genuine for pair in crops.pairs])
    certain = found.same >= 0
    np.testing.assert_array_equal(found.same[certain].astype(bool), genuine[certain])
    assert (found.radius <= distance).all()
    assert (found.radius[~certain] == 0).all()
    # So near to the plane no majority is shown; so far from it all draws agree, and more draws would show more.
    assert not certain[distance < 0.003].any()
    largest = 0.1 * stats.norm.ppf(0.001 ** (1 / 4000))
    within = certain & (distance < 0.2)
    assert within.any()
    np.testing.assert_allclose(found.radius[within], distance[within], atol=0.012)
    np.testing.assert_allclose(found.radius[distance > 0.4], largest)


def test_votes_are_found_again_and_damaged_ones_made_anew(tmp_path: Path) -> None:
    bench, crops, _ = linear_pairs(tmp_path)
    none, how = find_profile("none"), Smoothing(0.1, 50, 0.99)
    clean = run_clean(bench.deployed(none), crops, bench.manifest.decision)
    first = certify(bench, none, how, crops, clean, tmp_path / "a", lambda done: None)
    (file,) = (tmp_path / "a").glob("*.votes")
    whole = file.read_bytes()
    before = bench.deployed(none).images_run
    certify(bench, none, how, crops, clean, tmp_path / "a", lambda done: None)
    assert bench.deployed(none).images_run == before, "nothing is asked twice"
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = certify(bench, none, how, crops, clean, tmp_path / "a", lambda done: None)
    np.testing.assert_array_equal(first.radius, again.radius)
    assert file.read_bytes() == whole


def test_noise_and_draws_that_can_say_nothing_are_refused() -> None:
    for sigma in (0.0, 10.5):
        with pytest.raises(UsageError, match="above 0 and at most 10"):
            Smoothing(sigma)
    assert Smoothing(10.0).draws == 1100
    with pytest.raises(UsageError, match="cannot certify"):
        Smoothing(0.1, 5, 0.999)


def test_rates_are_over_all_pairs() -> None:
    genuine = np.array([True] * 4 + [False] * 2)
    made = PairCertificates(
        "p", 0.1, 1000, 0.999, np.array([1, 1, 0, -1, 0, 1]), np.array([0.3, 0.05, 0.2, 0, 0.6, 0.6])
    )
    dodging, impersonation = certification_results(made, genuine, ())
    # A large radius around a wrong decision certifies nothing.
    at_radius = ((0.1, Rate(1, 4)), (0.25, Rate(1, 4)), (0.5, Rate(0, 4)), (1.0, Rate(0, 4)))
    median = pytest.approx((0.3 + 0.05) / 2)
    assert dodging == CertificationResult(
        "p", 0.1, 1000, 0.999, "dodging", Rate(2, 4), Rate(1, 4), at_radius, median, deployed=False
    )  # fmt: skip
    assert dict(impersonation.at_radius)[0.5] == Rate(1, 2)
    assert (impersonation.goal, impersonation.abstained, impersonation.median_radius) == (
        "impersonation", Rate(0, 2), 0.6
    )  # fmt: skip
    # A radius counts at itself; where nothing is decided correctly, there is no median.
    wrong = replace(made, same=np.array([1, 1, 1, 1, 1, 1]), radius=np.full(6, 0.5))
    dodging, impersonation = certification_results(wrong, genuine, ())
    assert dict(dodging.at_radius)[0.5] == Rate(4, 4)
    assert impersonation.median_radius is None
    (only,) = certification_results(made, np.ones(6, np.bool_), ())
    assert only.goal == "dodging", "a goal without pairs has no result"


def test_no_attack_within_the_radius_changes_the_vote_on_real_faces(
    tmp_path: Path, facenet_mini: TensorFlowVerifier
) -> None:
    manifest = find_manifest("facenet-mini")
    assert manifest.alignment is not None
    bench, none = Bench(manifest, Execution("cpu", threads=2), 0), find_profile("none")
    crops = crop_pairs(load_pairs(embedded_pairs(), limit=4), 160, 160, manifest.alignment.template)
    verifier = bench.deployed(none)
    clean = run_clean(verifier, crops, manifest.decision)
    smoothing = Smoothing(0.1, 60, 0.95)
    found = certify(bench, none, smoothing, crops, clean, tmp_path, lambda done: None)
    genuine = np.array([pair.genuine for pair in crops.pairs])
    right = np.flatnonzero((found.same == genuine) & (found.radius > 0))
    assert len(right) >= 2
    probes, references = (to_unit(crops.images[crops.index[right, i]]) for i in (0, 1))
    generators = tuple(np.random.default_rng(row) for row in right)
    task = Task(probes, verifier.embed(references), genuine[right], manifest.decision, generators)
    model, moved = WhiteBox(verifier, facenet_mini), probes
    for _ in range(5):  # uphill, as far as the certificate says that nothing happens
        _, gradient = ascent(model, task, np.arange(len(right)), moved)
        gradient /= np.sqrt(np.square(gradient).sum(axis=(1, 2, 3), keepdims=True))
        moved = np.clip(moved + gradient * found.radius[right, None, None, None] / 5, 0, 1).astype(np.float32)
    far = np.sqrt(np.square(moved - probes).sum(axis=(1, 2, 3)))
    assert ((far > 0.8 * found.radius[right]) & (far <= found.radius[right] + 1e-4)).all()
    for probe, reference, same in zip(moved, task.references, genuine[right], strict=True):
        noise = np.random.default_rng(7).normal(size=(80, *probe.shape)) * smoothing.sigma
        draws = verifier.embed(np.clip(probe + noise, 0, 1).astype(np.float32))
        accepted = is_same(manifest.decision, distances(manifest.decision.metric, draws, np.tile(reference, (80, 1))))
        assert (accepted.mean() > 0.5) == same


class Scripted:
    """A deployed verifier that accepts the draws it is told to, and keeps what it was given."""

    def __init__(self, accepts: np.ndarray, near: float = 0.0, far: float = 9.0, score: float = 0.0) -> None:
        self.accepts, self.near, self.far, self.score, self.seen = accepts, near, far, score, []

    def embed_and_score(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = sum(map(len, self.seen))
        self.seen.append(images)
        same = self.accepts[start : start + len(images)]
        scores = np.full(len(images), self.score, np.float32)
        return np.where(same, self.near, self.far)[:, None].astype(np.float32), scores


def certified_by(
    scripted: Scripted, folder: Path, level: int = 128, metric: str = "euclidean", alarm: float = np.inf
) -> PairCertificates:
    folder.mkdir(exist_ok=True)
    bench, crops, _ = linear_pairs(folder)
    none = find_profile("none")
    clean = replace(
        run_clean(bench.deployed(none), crops, bench.manifest.decision), embeddings=np.zeros((10, 1)), alarm=alarm
    )
    decision = replace(bench.manifest.decision, metric=metric)
    bench.manifest = replace(bench.manifest, decision=decision)
    one = replace(crops, images=np.full_like(crops.images, level), pairs=crops.pairs[:1], index=crops.index[:1])
    bench.deployed = lambda profile: scripted  # type: ignore[assignment]
    return certify(bench, none, Smoothing(0.5, 200, 0.99), one, clean, folder, lambda done: None)


def test_the_draws_that_choose_the_decision_do_not_count_for_its_certainty(tmp_path: Path) -> None:
    """Cohen et al. 2019, algorithm 1: the two sets of draws are independent."""
    chosen, others = np.ones(100, np.bool_), np.arange(200) < 20
    found = certified_by(Scripted(np.concatenate([chosen, others])), tmp_path)
    assert (found.same[0], found.radius[0]) == (-1, 0), "20 of 200 that count agree, which is no majority"


def test_the_radius_counts_the_other_draws_alone(tmp_path: Path) -> None:
    chosen, others = np.arange(100) < 51, np.ones(200, np.bool_)
    found = certified_by(Scripted(np.concatenate([chosen, others])), tmp_path)
    assert found.same[0] == 1
    assert found.radius[0] == pytest.approx(0.5 * stats.norm.ppf(0.01 ** (1 / 200)))


@pytest.mark.parametrize("chosen", [0, 40, 50])
def test_what_half_of_the_first_draws_accept_at_most_is_rejected(tmp_path: Path, chosen: int) -> None:
    found = certified_by(Scripted(np.arange(300) < chosen), tmp_path)
    assert (found.profile, found.sigma, found.samples, found.confidence) == ("none", 0.5, 200, 0.99)
    assert found.same.tolist() == [0]
    assert found.radius[0] == pytest.approx(0.5 * stats.norm.ppf(0.01 ** (1 / 200)))


def test_a_draw_is_judged_by_the_metric_and_the_detector_of_the_verifier(tmp_path: Path) -> None:
    accepted = np.ones(300, np.bool_)
    # 0.2 from the reference, and 0.04 squared, at a threshold of 0.1.
    for metric, same in (("euclidean", 0), ("squared-euclidean", 1)):
        found = certified_by(Scripted(accepted, near=0.2), tmp_path / metric, metric=metric)
        assert found.same.tolist() == [same]
    for score, same in ((0.5, 1), (0.75, 0)):
        found = certified_by(Scripted(accepted, score=score), tmp_path / str(score), alarm=0.5)
        assert found.same.tolist() == [same], "an image at the alarm is not flagged, one above it is"


def test_the_noise_is_that_of_the_pair(tmp_path: Path) -> None:
    """A certificate therefore depends neither on the batch nor on the order of the pairs."""
    scripted = Scripted(np.ones(300, np.bool_))
    certified_by(scripted, tmp_path)
    generator = pair_generator(0, "certify 0.5", linear_pairs(tmp_path)[1].pairs[0].id)
    for seen, count in zip(scripted.seen, [64, 64, 64, 64, 44], strict=True):
        noise = generator.standard_normal((count, SIDE, SIDE, 3), dtype=np.float32)
        np.testing.assert_array_equal(seen, np.clip(np.float32(128 / 255) + np.float32(0.5) * noise, 0, 1))


def test_chunks_change_no_certificate_and_are_told_when_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, crops, _ = linear_pairs(tmp_path)
    none, how = find_profile("none"), Smoothing(0.1, 50, 0.99)
    clean = run_clean(bench.deployed(none), crops, bench.manifest.decision)
    done: list[int] = []
    whole = certify(bench, none, how, crops, clean, tmp_path / "whole", done.append)
    assert done == [10]
    monkeypatch.setattr("toolkit.audit.replaying.presented.CHUNK", 4)
    parts = certify(bench, none, how, crops, clean, tmp_path / "parts", done.append)
    assert done == [10, 4, 4, 2]
    np.testing.assert_array_equal(parts.same, whole.same)
    np.testing.assert_array_equal(parts.radius, whole.radius)
    assert 0 < (whole.same == 1).sum() < 10


def test_votes_are_named_by_what_they_depend_on(tmp_path: Path) -> None:
    bench, crops, _ = linear_pairs(tmp_path)
    none, how, row = find_profile("none"), Smoothing(0.1, 50, 0.99), np.array([2])

    def name(bench: Bench = bench, how: Smoothing = how, crops: CropSet = crops, profile: Profile = none) -> str:
        return _key(bench, profile, how, crops, row)

    def drawn(image: int) -> CropSet:
        images = crops.images.copy()
        images[image] += 1
        return replace(crops, images=images)

    def read(**changes: Any) -> Bench:
        return Bench(replace(bench.manifest, **changes), bench.execution, 0)

    other_model = write_linear(tmp_path, weights=np.ones((SIDE * SIDE * 3, 1)), side=SIDE, name="other")
    gallery = replace(crops, gallery=np.array([5, 6]))
    pairs = (*crops.pairs[:2], replace(crops.pairs[2], probe="another"), *crops.pairs[3:])
    names = [
        name(),
        name(Bench(bench.manifest, bench.execution, 1)),
        name(read(model=other_model)),
        name(read(decision=replace(bench.manifest.decision, threshold=0.2))),
        name(read(output=replace(bench.manifest.output, normalize=True))),
        name(how=Smoothing(0.2, 50, 0.99)),
        name(how=Smoothing(0.1, 60, 0.99)),
        name(profile=find_profile("mean3")),
        name(crops=replace(crops, pairs=pairs)),
        name(crops=drawn(2)),
        name(crops=drawn(0)),
        name(crops=gallery),
        name(crops=replace(drawn(6), gallery=gallery.gallery)),
    ]
    assert len(set(names)) == len(names)
    assert name(crops=drawn(7)) == names[0], "the photographs of other pairs do not matter"
    assert name(crops=replace(drawn(0), gallery=gallery.gallery)) == name(crops=gallery), "nor does it in a group"


@pytest.mark.parametrize("level", [0, 255])
def test_noisy_copies_are_images_again(tmp_path: Path, level: int) -> None:
    scripted = Scripted(np.ones(300, np.bool_))
    certified_by(scripted, tmp_path, level)
    seen = np.concatenate(scripted.seen)
    assert (seen.min(), seen.max()) == (0, 1)
    clipped = (seen == level / 255).mean()
    assert clipped == pytest.approx(0.5, abs=0.02), "half of the noise leaves the range at a black or white pixel"


VOTING = """schema = 1
name = "voting"
[[defense]]
name = "noise"
sigma = 0.1
block = 2
[ensemble]
draws = 64
[vote]
threshold = 0.12
confidence = 0.99
"""


def test_the_votes_of_every_pair_are_certified() -> None:
    """One embedding of a draw is one number, and the reference is 0: a draw accepts below the threshold."""
    draws, pairs = 256, 40  # more pairs than one chunk
    agreeing = np.linspace(0, draws, pairs).astype(int)
    # A draw at the threshold does not accept.
    each = np.where(np.arange(draws) < agreeing[:, None], 0.125, 0.25).astype(np.float32)
    embeddings = np.concatenate([each, np.zeros((1, draws), np.float32)])
    index = np.stack([np.arange(pairs), np.full(pairs, pairs)], axis=1)
    listed = tuple(Pair(str(i), "r", genuine=True) for i in range(pairs))
    crops = CropSet(np.zeros((pairs + 1, 2, 2, 3), np.uint8), tuple("p" * (pairs + 1)), listed, index, ())
    scores = np.zeros(pairs + 1)
    # One probe is flagged and one nearly; a reference is not asked about.
    scores[1], scores[2], scores[-1] = 0.6, 0.5, 0.9
    fine = np.ones(pairs, np.bool_)
    clean = CleanRun(embeddings, np.zeros(pairs), fine, scores, 0.5, fine)
    manifest = find_manifest("facenet-mini")
    manifest = replace(manifest, output=replace(manifest.output, size=1), decision=Decision("euclidean", 0.25, 4.0))
    radii = vote_radii(draws, 0.25, 0.99)
    for threshold in (None, 0.25):
        vote = VoteOutput(draws=draws, threshold=threshold, sigma=0.25, confidence=0.99)
        found = certify_vote(vote, manifest, "voting", crops, clean)
        expected = np.where(np.arange(pairs) == 1, 0, radii[agreeing])
        assert (found.profile, found.sigma, found.samples, found.confidence) == ("voting", 0.25, draws, 0.99)
        np.testing.assert_array_equal(found.radius, expected)
        np.testing.assert_array_equal(found.same, np.where(expected > 0, agreeing > draws / 2, -1))
        assert {-1, 0, 1} <= set(found.same.tolist())
    strict = certify_vote(replace(vote, threshold=0.05), manifest, "voting", crops, clean)
    assert set(strict.same[np.arange(pairs) != 1].tolist()) == {0}, (
        "its own threshold decides, and no draw is that near"
    )
    squared = replace(manifest, decision=Decision("squared-euclidean", 0.0625, 4.0))
    again = certify_vote(replace(vote, threshold=0.0625), squared, "voting", crops, clean)
    np.testing.assert_array_equal(again.same, found.same)


def test_each_profile_is_certified_as_it_is_deployed(tmp_path: Path) -> None:
    bench, crops, _ = linear_pairs(tmp_path)
    (tmp_path / "voting.toml").write_text(VOTING)
    none, voting = find_profile("none"), find_profile(tmp_path / "voting.toml")
    clean = {p: run_clean(bench.deployed(p), crops, bench.manifest.decision) for p in (none, voting)}
    stages: list[tuple[str, int]] = []
    done: list[int] = []

    class Seen:
        def stage(self, name: str, total: int) -> Callable[[int], None]:
            stages.append((name, total))
            return done.append

        counter = SILENT.counter

    given: list[Job] = []

    class Counting(InProcess):
        def submit(self, job: Job) -> Ticket:
            given.append(job)
            return super().submit(job)

    def certificates(of: Bench, crops: CropSet, *sigmas: float) -> list[tuple[str, float, int]]:
        smoothings = [Smoothing(sigma, samples=40, confidence=0.9) for sigma in sigmas]
        found = certify_all(of, smoothings, crops, clean, tmp_path, Seen(), Counting(of))
        return [(one.profile, one.sigma, one.samples) for one in found]

    own = ("voting", 0.1, 64)
    assert certificates(bench, crops, 0.1, 0.2) == [("none", 0.1, 40), ("none", 0.2, 40), own]
    pairs = len(crops.pairs)
    assert stages == [("certify none, noise 0.1", pairs), ("certify none, noise 0.2", pairs)]
    assert sum(done) == 2 * pairs
    assert {job.name for job in given} == {"certificates of none"}
    assert len(given) == 2
    group = replace(crops, gallery=np.array([0]))
    assert certificates(bench, group, 0.1) == [("none", 0.1, 40)], "a vote on one reference says nothing of a group"
    # The embedding is the mean of the pixels, whose slope is one over the root of their number.
    output = replace(bench.manifest.output, lipschitz=1.01 / np.sqrt(SIDE * SIDE * 3))
    bounded = Bench(replace(bench.manifest, output=output), bench.execution, 0)
    assert certificates(bounded, crops) == [("none", 0.0, 0), own]
    assert certificates(bounded, group) == []


def test_a_profile_with_a_vote_is_certified_and_attacked_as_it_is_deployed(tmp_path: Path) -> None:
    """Also as a hardened file of its own, whose gradients nobody has."""
    model, profile = write_people(tmp_path), tmp_path / "voting.toml"
    profile.write_text(VOTING)
    options = AuditOptions(
        model=str(model), pairs=str(tmp_path / "pairs.csv"), profiles=(str(profile),), attacks=("apgd-l2", "gaussian"),
        limit=20, certify=(0.1,), run=str(tmp_path / "run"), settings=("apgd-l2.epsilon=0.6", "gaussian.draws=2"),
    )  # fmt: skip
    run = audit_verifier(options)
    found = {c.goal: c for c in run.assessment.certification}
    assert {(c.profile, c.deployed, c.sigma, c.samples, c.confidence) for c in found.values()} == {
        ("voting", True, 0.1, 64, 0.99)
    }, "a vote has no other certificates"
    assert all(c.at_radius[0][1].successes > 0 for c in found.values())
    # The certificates of single pairs are kept, and the attack stays outside of nearly all of them.
    (certificates,) = read_run(tmp_path / "run").certificates
    outcomes = [o for o in run.outcomes if o.attack == "apgd-l2" and o.knowledge == "perfect"]
    assert outcomes
    fallen = np.array([o.success for o in outcomes]).any(axis=0)
    norms = np.array([np.where(o.success, o.l2, np.inf) for o in outcomes]).min(axis=0)
    assert fallen.any(), "an attack that never succeeds checks nothing"
    assert (norms[fallen] >= certificates.radius[fallen]).mean() > 0.9
    assert all(c.passed for c in run.assessment.checks if c.name == "parity"), run.assessment.checks
    page = io.StringIO()
    print_assessment(run.assessment, Console(file=page, width=80), [])
    text = " ".join(page.getvalue().split())
    assert "Certificates of voting hold for what is deployed: the vote over the 64 noisy copies in the file" in text
    hardened = harden_verifier(model, profile, tmp_path / "hardened.onnx").path
    alone = audit_verifier(
        replace(options, model=str(hardened), profiles=("none",), run=str(tmp_path / "alone"), certify=())
    )
    assert {c.goal: (c.at_radius, c.deployed) for c in alone.assessment.certification} == {
        goal: (c.at_radius, True) for goal, c in found.items()
    }
    assert [u.attack for u in alone.assessment.unavailable] == ["apgd-l2"]
