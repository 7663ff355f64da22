"""A profile whose draws vote: one decision and one certificate in the file, in NumPy and in TensorFlow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.models import write_linear
from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import run_clean
from toolkit.audit.replaying.certify import certify_vote
from toolkit.defenses.bit_depth import BitDepth
from toolkit.defenses.mean import Mean
from toolkit.defenses.median import Median
from toolkit.defenses.noise import Noise
from toolkit.defenses.randomness import normals
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import Pair
from toolkit.profiles.detector import Detector
from toolkit.profiles.harden import deploy, harden, write_hardened
from toolkit.profiles.profile import Profile, read_profile
from toolkit.profiles.vote import Vote
from toolkit.statistics.certification import certified_radius, embedding_radius, vote_radii
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.entropy import ENTROPY, seeded_entropy
from toolkit.verifiers.hardened import VoteOutput
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.scores import distances
from toolkit.verifiers.variants import draw_distances, voted_distances
from toolkit.verifiers.votes import DRAWS, RADIUS, REFERENCE, SAME, THRESHOLD, VOTES

SIDE, SIZE, N = 8, 4, 21
WEIGHTS = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, SIZE)).astype(np.float32) / 8
CROPS = np.random.default_rng(1).random((5, SIDE, SIDE, 3), np.float32)
METRICS = ("squared-euclidean", "euclidean", "cosine")


def voting(sigma: float = 0.2, draws: int = N, threshold: float = 1.0) -> Profile:
    return Profile("voting", "", (Noise(sigma, 2), Mean(3)), "x", "", draws, vote=Vote(threshold, 0.99))


def verifier(folder: Path, metric: str = "euclidean", **text: object) -> Manifest:
    return read_manifest(write_linear(folder, weights=WEIGHTS, side=SIDE, metric=metric, **text))


def middle(manifest: Manifest, profile: Profile) -> float:
    """A threshold that splits the draws of the crops to the first crop."""
    deployed = deploy(read_model(manifest), manifest, profile, seed=3)
    draws = deployed.embed(CROPS)
    return float(np.median(draw_distances(manifest.decision.metric, SIZE, draws, np.repeat(draws[:1], 5, axis=0))))


@pytest.mark.parametrize("metric", METRICS)
def test_the_file_counts_the_votes_that_its_draws_give(tmp_path: Path, metric: str) -> None:
    manifest, profile = verifier(tmp_path, metric), voting()
    threshold = middle(manifest, profile)
    session = onnxruntime.InferenceSession(harden(read_model(manifest), manifest, profile))
    assert {i.name for i in session.get_inputs()} == {"input", ENTROPY, REFERENCE, THRESHOLD}
    reference = profile.embed_and_score(RuntimeVerifier(manifest).embed, manifest.decision.metric, CROPS[:1])[0]
    reference = reference[:, :SIZE]
    asked = {"input": CROPS, ENTROPY: np.arange(5), THRESHOLD: np.array([threshold], np.float32)}
    draws, votes, same, radius = session.run([DRAWS, VOTES, SAME, RADIUS], {**asked, REFERENCE: reference})
    assert draws.shape == (5, N, SIZE)
    d = distances(manifest.decision.metric, draws, reference[:, None])
    np.testing.assert_array_equal(votes, (d < threshold).sum(axis=1))
    assert len(set(votes)) > 1, "a threshold in the middle divides the votes"
    expected = vote_radii(N, 0.2, 0.99)[votes]
    np.testing.assert_allclose(radius, expected, rtol=1e-6)
    assert (radius <= expected).all(), "rounding must not enlarge a certificate"
    np.testing.assert_array_equal(same, np.where(expected > 0, 2 * votes > N, -1))
    np.testing.assert_array_equal(
        voted_distances(metric, SIZE, draws.reshape(5, -1), reference) < threshold, 2 * votes > N
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("lacking", [REFERENCE, THRESHOLD])
def test_without_a_reference_or_a_threshold_the_file_abstains(tmp_path: Path, lacking: str) -> None:
    manifest = verifier(tmp_path)
    session = onnxruntime.InferenceSession(harden(read_model(manifest), manifest, voting()))
    asked = {
        "input": CROPS,
        ENTROPY: np.arange(5),
        REFERENCE: np.zeros((5, SIZE), np.float32),
        THRESHOLD: np.array([1e9], np.float32),
    }
    assert (session.run([VOTES], asked)[0] == N).all(), "everything is nearer than that"
    asked[lacking] = np.full_like(asked[lacking], np.nan)
    votes, same, radius = session.run([VOTES, SAME, RADIUS], asked)
    assert (votes == -1).all()
    assert (same == -1).all()
    assert (radius == 0).all()


WATCH = Detector((Median(3), BitDepth(2)), 0.1, 0.05)


@pytest.mark.parametrize("detector", [None, WATCH], ids=["alone", "with a detector"])
@pytest.mark.parametrize("metric", METRICS)
def test_the_three_forms_embed_and_decide_alike(tmp_path: Path, metric: str, detector: Detector | None) -> None:
    manifest = verifier(tmp_path, metric)
    profile = replace(voting(), vote=Vote(middle(manifest, voting()), 0.99), detector=detector)
    bench = Bench(manifest, Execution("cpu"), 6)
    # The attacker's side draws with the next seed.
    deployed, original = deploy(read_model(manifest), manifest, profile, seed=7), bench.gradients(profile)
    bare = RuntimeVerifier(manifest)
    staged, scores = profile.embed_and_score(bare.embed, manifest.decision.metric, CROPS, seeded_entropy(CROPS, 7))
    ours, seen = deployed.embed_and_score(CROPS)
    np.testing.assert_allclose(seen, scores, atol=1e-5)
    np.testing.assert_allclose(original.embed_and_score(CROPS)[1], scores, atol=1e-5)
    assert (scores > 0).all() == (detector is not None)
    assert ours.shape == (5, N * SIZE)
    np.testing.assert_allclose(ours, staged, atol=1e-5)
    np.testing.assert_allclose(original.embed(CROPS), staged, atol=1e-5)
    references = np.repeat(bare.embed(CROPS[:1]), 5, axis=0)
    d = deployed.compare(ours, references)
    np.testing.assert_allclose(original.compare(original.embed(CROPS), references), d, rtol=1e-4)
    assert profile.vote is not None
    counted = (draw_distances(manifest.decision.metric, SIZE, ours, references) < profile.vote.threshold).sum(axis=1)
    # In an audit the verifier's own threshold decides as the vote's does.
    np.testing.assert_array_equal(d < manifest.decision.threshold, 2 * counted > N)
    # Draws of the references are averaged.
    assert np.isfinite(original.distances_and_gradients(CROPS, ours)[1]).all()


def test_attackers_follow_the_mean_distance_of_draws(tmp_path: Path) -> None:
    manifest = verifier(tmp_path, "squared-euclidean")
    original = Bench(manifest, Execution("cpu"), 6).gradients(voting(threshold=2.0))
    references = np.zeros((5, SIZE), np.float32)
    d, gradient = original.distances_and_gradients(CROPS, references)
    np.testing.assert_allclose(original.distances(CROPS, references), d, rtol=1e-5)
    nearer = original.distances(np.clip(CROPS - 0.3 * gradient / np.abs(gradient).max(), 0, 1), references)
    assert (nearer < d).all()


def test_a_detector_changes_neither_draws_nor_votes_and_is_in_the_manifest(tmp_path: Path) -> None:
    manifest = verifier(tmp_path)
    alone, both = voting(), replace(voting(), detector=WATCH)
    asked = {
        "input": CROPS,
        ENTROPY: np.arange(5),
        REFERENCE: np.zeros((1, SIZE), np.float32),
        THRESHOLD: np.array([middle(manifest, alone)], np.float32),
    }
    files = [harden(read_model(manifest), manifest, profile) for profile in (alone, both)]
    one, other = (onnxruntime.InferenceSession(file).run([DRAWS, VOTES, SAME, RADIUS], asked) for file in files)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    written = read_manifest(write_hardened(manifest, both, tmp_path / "hardened.onnx").path)
    assert written.vote == VoteOutput(N, 0.2, 0.99)
    assert written.alarm == WATCH.threshold
    again, audited = RuntimeVerifier(written, seed=3), deploy(read_model(manifest), manifest, both, seed=3)
    np.testing.assert_array_equal(again.embed_and_score(CROPS)[1], audited.embed_and_score(CROPS)[1])


def test_what_the_detector_flags_is_not_certified(tmp_path: Path) -> None:
    manifest = verifier(tmp_path)
    images = (255 * CROPS).astype(np.uint8)
    pairs = tuple(Pair(str(i), str((i + 1) % 5), True) for i in range(5))
    crops = CropSet(images, tuple("01234"), pairs, np.array([[i, (i + 1) % 5] for i in range(5)]), (), None)
    profile = replace(voting(threshold=9.0), detector=WATCH)
    bench = Bench(manifest, Execution("cpu"), 0)
    clean = run_clean(bench.deployed(profile), crops, manifest.decision)
    alarm = float(np.median(clean.scores))
    for judged, expected in (
        (replace(clean, alarm=np.inf), np.ones(5)),
        (replace(clean, alarm=alarm), clean.scores <= alarm),
    ):
        found = certify_vote(VoteOutput(N, 0.2, 0.99, 9.0), manifest, "voting", crops, judged)
        np.testing.assert_array_equal(found.same == 1, expected)
        np.testing.assert_array_equal(found.radius > 0, expected)


def test_a_hardened_file_is_read_again_with_the_threshold_of_its_vote(tmp_path: Path) -> None:
    manifest, profile = verifier(tmp_path), voting(threshold=0.7)
    written = read_manifest(write_hardened(manifest, profile, tmp_path / "hardened.onnx").path)
    assert written.vote == VoteOutput(N, 0.2, 0.99)
    assert written.decision.threshold == pytest.approx(0.7)
    again, audited = RuntimeVerifier(written, seed=3), deploy(read_model(manifest), manifest, profile, seed=3)
    np.testing.assert_array_equal(again.embed(CROPS), audited.embed(CROPS))
    references = np.zeros((5, SIZE), np.float32)
    d = [model.compare(model.embed(CROPS), references) for model in (again, audited)]
    np.testing.assert_allclose(d[0] / 0.7, d[1] / manifest.decision.threshold, rtol=1e-6)


@given(arrays.arrays(np.float32, st.tuples(st.just(3), st.integers(1, 9)), elements=st.floats(0, 2, width=32)))
def test_the_distance_is_below_a_threshold_exactly_if_most_draws_are(values: np.ndarray) -> None:
    draws = values.shape[1]
    d = voted_distances("euclidean", 1, values, np.zeros((3, 1), np.float32))
    for threshold in np.unique(np.concatenate([values.ravel(), [0.5, 1.0]])):
        np.testing.assert_array_equal(d < threshold, 2 * (values < threshold).sum(axis=1) > draws)


def test_radii_are_those_of_cohen_at_half_the_error() -> None:
    radii = vote_radii(100, 0.25, 0.99)
    np.testing.assert_array_equal(radii, radii[::-1])
    assert radii[50] == 0
    assert radii[100] == pytest.approx(certified_radius(Rate(100, 100), 0.25, 0.995))
    assert radii[100] == pytest.approx(0.25 * stats.norm.ppf(0.005 ** (1 / 100)))
    assert (np.diff(radii[50:]) >= 0).all()


@pytest.mark.parametrize(("draws", "confidence"), [(10, 0.9), (64, 0.99), (64, 0.999), (101, 0.95)])
def test_a_certificate_is_wrong_no_more_often_than_stated(draws: int, confidence: float) -> None:
    """Exactly: over all numbers of votes, for every probability that a draw accepts."""
    radii, votes = vote_radii(draws, 1.0, confidence), np.arange(draws + 1)
    for p in np.linspace(0.001, 0.999, 333):
        true = abs(stats.norm.ppf(p))
        wrong_side = (2 * votes > draws) != (p > 0.5)
        wrong = (radii > 0) & ((radii > true) | wrong_side)
        assert stats.binom.pmf(votes[wrong], draws, p).sum() <= 1 - confidence + 1e-12


def test_no_certificate_reaches_beyond_a_distance_that_is_known() -> None:
    """Thousands of pairs of a linear verifier, whose distance to the boundary is known, with the noise of the file."""
    pairs, draws, sigma, size = 4000, 64, 0.5, 12
    rng = np.random.default_rng(4)
    distance = np.abs(rng.normal(0, 0.5, pairs))
    noise = normals(rng.integers(0, 2**62, pairs * draws), 0, size)
    direction = rng.standard_normal(size)
    along = (noise @ (direction / np.linalg.norm(direction))).reshape(pairs, draws)
    votes = (distance[:, None] + sigma * along > 0).sum(axis=1)
    radii = vote_radii(draws, sigma, 0.99)[votes]
    wrong = int((radii > distance).sum())
    assert stats.binom.sf(wrong - 1, pairs, 0.01) > 1e-3, f"{wrong} of {pairs} certificates are wrong"
    # A certificate that says nothing would never be wrong.
    assert np.median(radii[distance > 1]) > 0.5


def test_normals_are_normal_and_unrelated() -> None:
    entropy = np.arange(300)  # the worst that a host could give: counted up from zero
    z = normals(entropy, 1, 1000)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    others = normals(entropy, 2, 1000), normals(entropy + 1, 1, 1000), np.roll(z, 1, axis=1), np.roll(z, 4, axis=1)
    for other in (*others, np.roll(z, 8, axis=1), z[:, ::-1]):
        for of in (np.asarray, np.abs, lambda x: x > 2):
            # Independent numbers have a correlation of 1 / sqrt(count) by chance.
            assert abs(np.corrcoef(of(z).ravel(), of(other).ravel())[0, 1]) < 4.5 / np.sqrt(z.size)
    # Sums over many numbers of an image, as a verifier makes them, are as normal as the numbers.
    sums = z.reshape(300 * 10, 100).sum(axis=1) / 10
    assert stats.kstest(sums, "norm").pvalue > 1e-3


def test_the_radius_of_a_smoothed_embedding_is_a_distance_to_a_cone() -> None:
    reference = np.array([1.0, 0, 0])
    # All draws agree: only the sampling error is taken off.
    for angle, accepts in ((0.2, True), (1.2, False)):
        draws = np.tile([np.cos(angle), np.sin(angle), 0], (10_000, 1))
        edge = 0.7
        threshold = 2 - 2 * np.cos(edge)
        same, radius = embedding_radius(draws, reference, threshold, 0.5, 0.999)
        unknown = np.sqrt(2 * np.log(1000) / 10_000) + 0.01
        assert same == accepts
        assert radius == pytest.approx((np.sin(abs(angle - edge)) - unknown) * 0.5 * np.sqrt(np.pi / 2))
    assert embedding_radius(draws[:10], reference, threshold, 0.5, 0.999)[1] == 0


NOISE, ENSEMBLE = '[[defense]]\nname = "noise"\n', "[ensemble]\ndraws = 4\n"
RIGHT = "threshold = 1.0\nconfidence = 0.99"


@pytest.mark.parametrize(
    ("steps", "vote", "message"),
    [
        ('[[defense]]\nname = "mean"\n' + NOISE + ENSEMBLE, RIGHT, "noise as the first"),
        (NOISE, RIGHT, r"needs \[ensemble\] draws"),
        ("", RIGHT, "needs"),
        (NOISE + ENSEMBLE, "threshold = 0\nconfidence = 0.9", "threshold must be a positive number"),
        (NOISE + ENSEMBLE, "threshold = 1.0\nconfidence = 1.0", "confidence must be from 0.5 to below 1"),
        (NOISE + ENSEMBLE, "threshold = 1.0", "confidence must be a number"),
        (NOISE + ENSEMBLE, f"{RIGHT}\ndraws = 3", "unknown key|did you mean|draws"),
    ],
)
def test_a_vote_that_certifies_nothing_is_refused_by_name(tmp_path: Path, steps: str, vote: str, message: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(f'schema = 1\nname = "p"\n{steps}[vote]\n{vote}\n')
    with pytest.raises(InputError, match=message):
        read_profile(path)


def test_blocks_that_do_not_divide_the_crop_are_refused(tmp_path: Path) -> None:
    manifest = verifier(tmp_path)
    profile = Profile("coarse", "", (Noise(0.1, 3),), "")
    with pytest.raises(InputError, match="sides are multiples of 3, but the verifier takes 8 x 8"):
        harden(read_model(manifest), manifest, profile)
