"""Joint probes: several verifiers as one, where the answer is known, and the command that crafts on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from tests.attacks.linear import found, smallest
from tests.attacks.test_attacks import linear_task
from tests.audit.transfer.test_transfer import SIDE, audited, people
from tests.commands import refused, sixpixels
from tests.models import Linear, write_linear
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.momentum import ATTACK as MOMENTUM
from toolkit.audit.crafting.ensemble import DECISION, Ensemble, Member, sight
from toolkit.audit.crafting.sources import Sources
from toolkit.audit.transfer.transfer import Transfer, replay_run
from toolkit.faces.carry import carry
from toolkit.pixels import to_8bit, to_unit
from toolkit.report.schemas import transfer_schema
from toolkit.verifiers.manifest import Decision, read_manifest
from toolkit.verifiers.runtime import Execution
from toolkit.verifiers.scores import distances, normalized

MATRIX = np.array([[0.8, 0.1, 0.3], [-0.1, 0.8, 1.2], [0, 0, 1]])


class Angular(Linear):
    """A linear verifier by cosine distance."""

    def distances_and_gradients(self, crops, references):  # type: ignore[no-untyped-def]
        embeddings = crops.reshape(len(crops), -1).astype(np.float64) @ self.weights
        u, v = normalized(embeddings), normalized(references)
        cosine = np.sum(u * v, axis=1)
        outer = -(v - cosine[:, None] * u) / np.linalg.norm(embeddings, axis=1, keepdims=True)
        return 1 - cosine, (outer @ self.weights.T).reshape(crops.shape).astype(np.float32)


def trio() -> tuple[Ensemble, np.ndarray]:
    """One verifier for each metric, of which the second sees another crop, and some images of a pair."""
    rng = np.random.default_rng(3)
    images = to_unit(rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8))
    own = to_unit(rng.integers(0, 256, (6, 7, 3)).astype(np.uint8))
    kinds = (
        (Linear, Decision("squared-euclidean", 0.7, 4.0), None),
        (Linear, Decision("euclidean", 1.3, 4.0), sight(MATRIX, 8, 8, own)),
        (Angular, Decision("cosine", 0.4, 2.0), None),
    )
    members = [
        Member(kind(rng.normal(size=(images[0].size if seen is None else own.size, 5)), decision), decision, seen)
        for kind, decision, seen in kinds
    ]
    return Ensemble(members, list(rng.normal(size=(3, 5)).astype(np.float32))), images


def test_the_distance_is_the_mean_of_all_each_in_units_of_its_threshold() -> None:
    ensemble, images = trio()
    shares = []
    for member, reference in zip(ensemble.members, ensemble.references, strict=True):
        own = member.model.embed(images if member.sight is None else member.sight.see(images))
        share = distances(member.decision.metric, own, reference[None]) / member.decision.threshold
        shares.append(share**2 if member.decision.metric == "euclidean" else share)
    references = np.repeat(ensemble.reference(), len(images), axis=0)
    expected = np.mean(shares, axis=0)
    np.testing.assert_allclose(ensemble.distances(images, references), expected, rtol=1e-5)
    np.testing.assert_allclose(ensemble.distances_and_gradients(images, references)[0], expected, rtol=1e-5)
    np.testing.assert_allclose(distances(DECISION.metric, ensemble.embed(images), references), expected, rtol=1e-4)


def test_the_gradient_is_the_slope_of_that_distance() -> None:
    ensemble, images = trio()
    references = np.repeat(ensemble.reference(), len(images), axis=0)
    gradient = ensemble.distances_and_gradients(images, references)[1]
    toward = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    ahead, behind = (ensemble.distances(images + np.float32(s) * toward, references) for s in (1e-3, -1e-3))
    np.testing.assert_allclose((ahead - behind) / 2e-3, np.sum(gradient * toward, axis=(1, 2, 3)), rtol=2e-2)


def test_a_verifier_sees_the_crop_as_it_is_carried_to_its_own() -> None:
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((20, 18, 3), (16, 15, 3)))
    crop, own = (cv2.GaussianBlur(image, (0, 0), 2) for image in noise)
    seen = sight(MATRIX, 20, 18, to_unit(own)).see(to_unit(crop[None]))[0]
    carried = carry(crop, MATRIX, own)
    # OpenCV rounds positions to a 32nd of a pixel, and may judge the border of the crop differently.
    assert np.mean(np.abs(to_8bit(seen).astype(int) - carried) <= 2) > 0.97
    assert (seen[0, 0] == to_unit(own)[0, 0]).all()
    same = sight(np.eye(3), 20, 18, np.zeros((20, 18, 3), np.float32))
    np.testing.assert_allclose(same.see(to_unit(crop[None]))[0], to_unit(crop), atol=1e-6)


def test_the_same_verifier_twice_is_the_verifier() -> None:
    model, task = linear_task(2)
    for row in range(2):
        members = [Member(model, task.decision)] * 2
        ensemble = Ensemble(members, [task.references[row]] * 2)
        alone = replace(
            task, probes=task.probes[[row]], references=ensemble.reference(), dodging=task.dodging[[row]],
            decision=DECISION, generators=task.generators[:1],
        )  # fmt: skip
        crafted = Fmn().craft(ensemble, alone)
        assert crafted.success8.all()
        ratio = found(alone, crafted, "l2") / smallest(model, task, "l2")[row]
        assert 0.999 < ratio[0] < 1.01


def verifier(folder: Path, name: str, seed: int, share: float = 1.0) -> Path:
    """A verifier of brightness and of its own fine structure; another share is another file of the same verifier."""
    size = SIDE * SIDE * 3
    fine = np.random.default_rng(seed).choice([-1, 1], size) / size * 12
    weights = share * np.stack([np.full(size, 1 / size), fine], 1)
    return write_linear(folder, weights=weights, side=SIDE, threshold=0.12, name=name)


@pytest.fixture(scope="module")
def audited_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[Path]]:
    """A folder of verifiers with a finished run, and the probes of the run itself."""
    folder = tmp_path_factory.mktemp("joint")
    manifest = read_manifest(verifier(folder, "first", 1))
    attacks = (replace(MOMENTUM, epsilon=6 / 255, steps=10, kernel=1, diversity=0.0), Gaussian(levels=1, draws=1))
    audited(manifest, people(folder, 3), folder / "run", attacks, "none")
    verifier(folder, "second", 2)
    verifier(folder, "target", 2, 1.001)
    return folder, set((folder / "run" / "probes").glob("*.probes"))


def test_joint_probes_reach_a_target_that_only_the_further_source_is_like(
    audited_folder: tuple[Path, set[Path]],
) -> None:
    folder, _ = audited_folder
    command = ["replay", folder / "run", "--on", folder / "target.onnx", "--source", folder / "second.onnx"]
    done = sixpixels(*command, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, transfer_schema())
    assert [other["name"] for other in document["further"]] == ["second"]
    rows = {(r["attack"], r["joint"]): r for r in document["results"] if r["goal"] == "dodging"}
    assert set(rows) == {("momentum", False), ("momentum", True), ("gaussian", False)}
    own, joint = rows["momentum", False], rows["momentum", True]
    assert own["crafted"] == joint["crafted"] == joint["eligible"] > 0
    assert own["asr"]["successes"] == 0
    # The mean may be reached without every member.
    assert joint["asr"]["successes"] > 0
    assert joint["linf"] <= 6 / 255 + 1e-6
    page = sixpixels(*command)
    assert "joint with" in page.stdout
    assert max(map(len, page.stdout.splitlines())) <= 80


def test_sources_that_cannot_be_used_are_refused(audited_folder: tuple[Path, set[Path]], tmp_path: Path) -> None:
    folder, _ = audited_folder
    replay = ["replay", folder / "run", "--on", folder / "target.onnx", "--source"]
    refused(sixpixels(*replay, folder / "target.onnx"), "--source target: is the verifier to replay on", 4)
    manifest = read_manifest(folder / "first.onnx")
    audited(manifest, folder / "people", tmp_path / "run", (Gaussian(levels=1, draws=1),), "none")
    replay[1] = tmp_path / "run"
    refused(sixpixels(*replay, folder / "second.onnx"), "--source needs an attack by gradients", 4)


def test_joint_probes_are_kept_and_do_not_depend_on_threads(
    audited_folder: tuple[Path, set[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, of_run = audited_folder

    def joint() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in set((folder / "run" / "probes").glob("*.probes")) - of_run}

    def replayed(threads: int) -> Transfer:
        on, second = str(folder / "target.onnx"), folder / "second.onnx"
        return replay_run(folder / "run", on, sources=(second,), execution=Execution("cpu", threads=threads))

    for path in joint():  # another test may have left some
        path.unlink()
    first, made = replayed(1), joint()
    assert made
    for path in made:
        path.unlink()
    assert replayed(3) == first
    assert joint() == made
    monkeypatch.setattr(Sources, "craft", None)
    assert replayed(1) == first, "what is finished is not crafted again"
