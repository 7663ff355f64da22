"""Faces rebuilt from scores: where the answer is known in closed form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.commands import sixpixels
from tests.models import write_linear
from toolkit.attacks.momentum import Momentum
from toolkit.audit.transfer.judge import local_judge
from toolkit.audit.transfer.reconstruct import Reconstruction, run_reconstruction, solve, squared
from toolkit.errors import InsufficientError
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import Images
from toolkit.profiles.profile import find_profile
from toolkit.progress import SILENT
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution
from toolkit.verifiers.scores import distances, normalized

SIDE, SIZE, FACES, PEOPLE = 12, 4, 12, 5
CPU = Execution("cpu", threads=1)
# Short steps without memory do not run past the reference of a linear verifier.
ATTACK = Momentum(steps=300, decay=0.0, kernel=1, diversity=0.0)


@pytest.mark.parametrize("size", [3, 20])
def test_scores_of_the_same_model_give_the_embedding_exactly(size: int) -> None:
    rng = np.random.default_rng(0)
    known, hidden = rng.normal(2, 1, (2 * size, size)), rng.normal(2, 1, (7, size))
    scores = np.square(known[:, None] - hidden).sum(axis=2)
    np.testing.assert_allclose(solve(known, scores), hidden, atol=1e-6)
    # A constant that every score has in addition is told apart from the embedding.
    np.testing.assert_allclose(solve(known, scores + 0.7), hidden, atol=1e-6)


def test_scores_that_fit_no_point_give_a_nearer_one_than_least_squares() -> None:
    rng = np.random.default_rng(1)
    known, hidden = rng.normal(size=(23, 20)), 0.3 * rng.normal(size=(50, 20))
    scores = np.square(known[:, None] - hidden).sum(axis=2) + rng.normal(0, 3, (23, 50))
    equations = np.hstack([-2 * known, np.ones((23, 1))])
    plain = np.linalg.lstsq(equations, scores - np.square(known).sum(axis=1)[:, None], rcond=None)[0][:20].T
    found, squares = (np.linalg.norm(points - hidden, axis=1).mean() for points in (solve(known, scores), plain))
    assert found < 0.3 * squares
    assert found < 1.1 * np.linalg.norm(hidden - known.mean(axis=0), axis=1).mean()


def test_every_metric_becomes_a_squared_distance_of_embeddings() -> None:
    a, b = np.random.default_rng(2).normal(size=(2, 5, 8))
    straight = np.square(a - b).sum(axis=1)
    np.testing.assert_allclose(squared("euclidean", distances("euclidean", a, b)), straight)
    np.testing.assert_allclose(squared("squared-euclidean", distances("squared-euclidean", a, b)), straight)
    of_unit = np.square(normalized(a) - normalized(b)).sum(axis=1)
    np.testing.assert_allclose(squared("cosine", distances("cosine", a, b)), of_unit)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces, people, and three verifiers: the target, one that sees it rotated, and one that sees something else."""
    folder, rng = tmp_path_factory.mktemp("scores"), np.random.default_rng(3)
    for group, count in (("faces", FACES), ("people", PEOPLE)):
        (folder / group).mkdir()
        for i in range(count):
            cv2.imwrite(str(folder / group / f"{i}.png"), rng.integers(90, 166, (SIDE, SIDE, 3)).astype(np.uint8))
        # The person's other photograph is not enrolled.
        lines = [f"{i}.png,{(i + 1) % count}.png,different" for i in range(count)]
        (folder / group / "pairs.csv").write_text("probe,reference,label\n" + "\n".join(lines))
    weights = (rng.normal(size=(SIDE * SIDE * 3, SIZE)) / 3).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0].astype(np.float32)
    different = (rng.normal(size=weights.shape) / 3).astype(np.float32)
    write_linear(folder, weights=weights, side=SIDE, threshold=0.4, name="target")
    write_linear(folder, weights=3 * weights @ turn, side=SIDE, threshold=1.2, name="turned")
    write_linear(folder, weights=different, side=SIDE, threshold=0.4, name="other")
    return folder


def rebuilt(folder: Path, surrogate: str, faces: str = "faces") -> Reconstruction:
    judge = local_judge(read_manifest(folder / "target.toml"), find_profile("none"), CPU, 0)
    seen: list[int] = []
    embed = judge.embed_and_score

    def counted(crops: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        seen.append(len(crops))
        return embed(crops)

    judge.embed_and_score = counted
    pairs, known = load_pairs(folder / "people"), load_pairs(folder / faces)
    own = read_manifest(folder / f"{surrogate}.toml")
    result = run_reconstruction(judge, own, pairs, known, ATTACK, CPU, 0, SILENT)
    # The faces, the people, and one image more for each: nothing else is presented.
    assert sum(seen) <= FACES + 2 * PEOPLE
    return result


@pytest.mark.parametrize("surrogate", ["target", "turned"])
def test_everybody_is_rebuilt_where_the_surrogate_sees_what_the_target_sees(folder: Path, surrogate: str) -> None:
    result = rebuilt(folder, surrogate)
    everybody = Rate(PEOPLE, PEOPLE)
    assert (result.opened, result.solved, result.built, result.accepted) == (Rate(0, PEOPLE), *3 * (everybody,))
    assert (result.queries, result.left_out, result.flagged) == (FACES, 0, 0)


def test_nobody_is_rebuilt_where_the_surrogate_sees_something_else(folder: Path) -> None:
    assert rebuilt(folder, "other").accepted == Rate(0, PEOPLE)


def test_what_the_detector_flags_is_not_accepted(folder: Path) -> None:
    judge = local_judge(read_manifest(folder / "target.toml"), find_profile("none"), CPU, 0)
    alarmed = dataclasses.replace(judge, alarm=-1.0)
    pairs, known = load_pairs(folder / "people"), load_pairs(folder / "faces")
    result = run_reconstruction(alarmed, read_manifest(folder / "target.toml"), pairs, known, ATTACK, CPU, 0, SILENT)
    assert (result.accepted, result.flagged) == (Rate(0, PEOPLE), PEOPLE)


def test_people_whom_a_face_opens_are_not_counted_as_rebuilt(folder: Path) -> None:
    with pytest.raises(InsufficientError, match="0 people who are not opened by one of them"):
        rebuilt(folder, "target", "people")


def test_the_command_prints_a_page_and_a_document(folder: Path) -> None:
    words = ("reconstruct", "target.onnx", "--surrogate", "turned.onnx", "--pairs", "people", "--faces", "faces")
    page = sixpixels(*words, cwd=folder)
    assert page.returncode == 0, page.stderr
    assert "solved" in page.stdout
    assert "5/5  100.0 [56.6, 100.0]" in page.stdout
    assert max(map(len, page.stdout.splitlines())) <= 80
    document = json.loads(sixpixels(*words, "--json", cwd=folder).stdout)
    assert (document["kind"], document["queries"]) == ("reconstruction", FACES)
    assert document["solved"]["successes"] == PEOPLE
    assert sixpixels(*words[:-1], "people", cwd=folder).returncode == 3
