"""Reconstruction: a face that a verifier takes to be an enrolled person, from its scores of a fixed set of faces.

The attacker presents the same faces to every enrolled reference, and reads the scores. Each score is a linear equation
in the reference's embedding (trilateration, as in "Do Not Return Similarity", arXiv:1901.09769). The attacker solves
the equations in the space of a model of their own, and builds an image with that embedding. No query depends on the
answer to another one, so that a watch on series of similar images does not notice the attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Task
from toolkit.attacks.momentum import Momentum
from toolkit.audit.crafting.craft import CHUNK, pair_generator
from toolkit.audit.transfer.judge import Crops, EmbeddingJudge, local_judge
from toolkit.errors import InsufficientError
from toolkit.faces.alignment import LandmarkFinder
from toolkit.faces.carry import View, between, carry
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import Pair, PairSet, find_pairs
from toolkit.pixels import Bools, Float, to_8bit, to_unit
from toolkit.profiles.harden import deploy
from toolkit.profiles.profile import find_profile
from toolkit.progress import SILENT, Progress
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.crops import view_of
from toolkit.verifiers.manifest import Decision, Manifest, Metric, find_manifest
from toolkit.verifiers.onnx_file import model_sha256
from toolkit.verifiers.runtime import Execution, read_model
from toolkit.verifiers.scores import distances, is_same, normalized
from toolkit.verifiers.tensorflow import TensorFlowVerifier
from toolkit.verifiers.white_box import WhiteBox

# Fewer faces determine nothing beyond a line.
_FEWEST_FACES = 3
# The ridges to choose from, as shares of the largest singular value squared.
_RIDGES = np.geomspace(1e-14, 10, 46)


@dataclass(frozen=True)
class Reconstruction:
    """The result of an attack by reconstruction on every enrolled person.

    Attributes:
        target, target_identity: the attacked verifier, and the SHA-256 of its file.
        profile: the target's profile.
        surrogate, surrogate_identity: the attacker's own model, and the SHA-256 of its file.
        attack: the attack that builds an image with the solved embedding on the surrogate.
        pairs_source: where the people come from: the first reference photograph of each is enrolled.
        faces_source: where the fixed set of faces comes from.
        queries: the scores that the attacker reads for each person: the number of faces. One image more is presented.
        left_out: people and faces without a face in the crops of both verifiers.
        opened: people that the target takes to be the same as one of the faces, over all people. This needs no
            reconstruction, and these people are not counted further.
        solved: people whose photograph the surrogate takes to be the same as the solved embedding, over the others.
        built: people whose photograph the surrogate takes to be the same as the built image, over the others.
        accepted: people that the target takes to be the same as the built image, over the others.
        flagged: built images that the target's detector flags. They are not accepted.
    """

    target: str
    target_identity: str
    profile: str
    surrogate: str
    surrogate_identity: str
    attack: str
    pairs_source: str
    faces_source: str
    queries: int
    left_out: int
    opened: Rate
    solved: Rate
    built: Rate
    accepted: Rate
    flagged: int


@dataclass(frozen=True)
class _Photos:
    """The m photographs of a list that have a face in the crops of both verifiers.

    Attributes:
        names: the m names.
        own: (m, H, W, 3), the surrogate's crops.
        theirs: (m, H', W', 3), the target's crops.
        finder: finds the landmarks of the photographs.
        left_out: the number of the list's photographs without a face.
    """

    names: tuple[str, ...]
    own: Crops
    theirs: Crops
    finder: LandmarkFinder
    left_out: int


def squared(metric: Metric, d: Float) -> Float:
    """Return squared Euclidean distances from distances. For the cosine distance, they are those of unit vectors."""
    return d**2 if metric == "euclidean" else 2 * d if metric == "cosine" else d


def solve(known: Float, scores: Float) -> Float:
    """Return points whose squared distances to known points come as near as possible to given scores.

    The equations |e|^2 - 2 <e, x> + |x|^2 = s are linear in x and |x|^2. A ridge pulls each point toward the mean of
    the known points, because scores of another model fit no point exactly. Of several ridges, each point takes the one
    that predicts its scores best, each from all others (leave-one-out).

    Args:
        known: (K, D), the known points.
        scores: (K, R), the squared distances of the known points to R unknown ones.

    Returns:
        (R, D) points.
    """
    center = known.mean(axis=0)
    around = known - center
    wanted = (np.sum(np.square(around), axis=1)[:, None] - scores) / 2
    wanted -= wanted.mean(axis=0)
    left, values, right = np.linalg.svd(around, full_matrices=False)
    projected = left.T @ wanted
    points, best = np.tile(center, (scores.shape[1], 1)), np.full(scores.shape[1], np.inf)
    for ridge in _RIDGES * values[0] ** 2:
        share = values**2 / (values**2 + ridge)
        # What a score contributes to its own prediction, the mean included.
        leverage = np.square(left) @ share + 1 / len(known)
        residual = (wanted - left @ (share[:, None] * projected)) / np.maximum(1 - leverage, 1e-12)[:, None]
        error = np.sum(np.square(residual), axis=0)
        better = error < best
        found = center + (values[:, None] / (values[:, None] ** 2 + ridge) * projected).T @ right
        points[better], best[better] = found[better], error[better]
    return points


def run_reconstruction(
    judge: EmbeddingJudge,
    surrogate: Manifest,
    pairs: PairSet,
    faces: PairSet,
    attack: Attack,
    execution: Execution,
    seed: int,
    progress: Progress,
) -> Reconstruction:
    """Rebuild every person from the target's scores, and present the images to the target.

    Args:
        judge: the target.
        surrogate: the attacker's model, whose gradients are used.
        pairs: the people: the first reference photograph of each is enrolled.
        faces: the fixed set: all photographs of these pairs.
        attack: impersonates the solved embedding on the surrogate, from the face with the best score.
        execution: how ONNX Runtime runs the surrogate.
        seed: seed of the attack.
        progress: shows the people.

    Raises:
        InsufficientError: too few faces can be used, or nobody is left to attack.
        SixpixelsError: a model cannot be run.
    """
    views = view_of(surrogate.input, surrogate.alignment), judge.view
    known, enrolled = _photos(faces, _names(faces), views), _photos(pairs, _people(pairs), views)
    d = _scores(judge, known, enrolled)
    opened = is_same(judge.decision, d.min(axis=0))
    rows = np.flatnonzero(~opened)
    if len(known.names) < _FEWEST_FACES or not len(rows):
        raise InsufficientError(
            f"{faces.source}: {len(known.names)} faces, and {len(rows)} people who are not opened by one of them as it "
            "is; give more or other --faces and --pairs"
        )
    model = _white_box(surrogate, execution)
    own, truth = (_embeddings(model, surrogate, crops) for crops in (known.own, enrolled.own[rows]))
    points = _solve_for(surrogate, own, judge.decision, d[:, rows])
    start, names = np.argmin(d[:, rows], axis=0), [enrolled.names[row] for row in rows]
    built = _build(attack, model, surrogate.decision, known.own[start], points, names, seed, progress)
    same, flagged = judge.same(_present(built, known, start, views), enrolled.theirs[rows])
    return Reconstruction(
        target=judge.name,
        target_identity=judge.identity,
        profile=judge.profile,
        surrogate=surrogate.name,
        surrogate_identity=model_sha256(surrogate.model),
        attack=attack.name,
        pairs_source=pairs.source,
        faces_source=faces.source,
        queries=len(known.names),
        left_out=known.left_out + enrolled.left_out,
        opened=_rate(opened),
        solved=_alike(surrogate.decision, points, truth),
        built=_alike(surrogate.decision, _embeddings(model, surrogate, built), truth),
        accepted=_rate(same & ~flagged),
        flagged=int(flagged.sum()),
    )


def _solve_for(surrogate: Manifest, known: Float, theirs: Decision, d: Float) -> Float:
    """Solve for the embeddings (R, D) in the surrogate's space, from distances (K, R) by the target's metric."""
    # The thresholds tell how the scales of the two models' distances differ.
    scale = _at_threshold(surrogate.decision) / _at_threshold(theirs)
    points = solve(known, squared(theirs.metric, d) * scale)
    return normalized(points) if _of_unit_length(surrogate) else points


def _build(
    attack: Attack,
    model: WhiteBox,
    decision: Decision,
    start: Crops,
    points: Float,
    names: list[str],
    seed: int,
    progress: Progress,
) -> Crops:
    """Build images (R, H, W, 3) from `start` whose embeddings come near to `points` (R, D)."""
    built, shown = start.copy(), progress.stage(attack.name, len(start))
    for first in range(0, len(start), CHUNK):
        part = slice(first, first + CHUNK)
        crops = to_unit(start[part])
        generators = tuple(pair_generator(seed, attack.name, name) for name in names[part])
        dodging = np.zeros(len(crops), np.bool_)
        task = Task(crops, points[part].astype(np.float32), dodging, decision, generators, eight_bits=False)
        built[part] = to_8bit(attack.craft(model, task).probes)
        shown(len(crops))
    return built


def _present(built: Crops, known: _Photos, start: NDArray[np.intp], views: tuple[View, View]) -> Crops:
    """Carry images built from the faces `start` (R,) to the target's crops of these faces."""
    matrices = [between(*views, known.names[i], known.finder) for i in start]
    return np.stack([carry(*one) for one in zip(built, matrices, known.theirs[start], strict=True)])


def _photos(pairs: PairSet, names: tuple[str, ...], views: tuple[View, View]) -> _Photos:
    finder = LandmarkFinder(pairs.root)
    alone = PairSet(pairs.root, tuple(Pair(name, name, True) for name in names), pairs.source)
    own, theirs = (crop_pairs(alone, view.width, view.height, view.template, finder) for view in views)
    mine, others = ({name: i for i, name in enumerate(crops.names)} for crops in (own, theirs))
    both = tuple(name for name in mine if name in others)
    if not both:
        raise InsufficientError(f"{pairs.source}: no photograph has a face in the crops of both verifiers")
    first, second = ([place[name] for name in both] for place in (mine, others))
    return _Photos(both, own.images[first], theirs.images[second], finder, len(names) - len(both))


def _names(pairs: PairSet) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pair in pairs.pairs for name in (pair.probe, pair.reference)))


def _people(pairs: PairSet) -> tuple[str, ...]:
    """The first reference photograph of each person. If the pairs do not name people, each photo counts as a person."""
    first: dict[str, str] = {}
    for pair in pairs.pairs:
        first.setdefault(pair.reference_identity or pair.reference, pair.reference)
    return tuple(first.values())


def _scores(judge: EmbeddingJudge, known: _Photos, enrolled: _Photos) -> Float:
    """The target's distances (K, R) between the faces and the people."""
    columns = [
        judge.measure(known.theirs, np.broadcast_to(reference, known.theirs.shape))[0] for reference in enrolled.theirs
    ]
    return np.stack(columns, axis=1)


def _white_box(surrogate: Manifest, execution: Execution) -> WhiteBox:
    runtime = deploy(read_model(surrogate), surrogate, find_profile("none"), execution)
    return WhiteBox(runtime, TensorFlowVerifier(surrogate))


def _of_unit_length(manifest: Manifest) -> bool:
    return manifest.output.normalize or manifest.decision.metric == "cosine"


def _embeddings(model: WhiteBox, manifest: Manifest, crops: Crops) -> Float:
    embeddings = model.embed(to_unit(crops)).astype(np.float64)
    return normalized(embeddings) if _of_unit_length(manifest) else embeddings


def _at_threshold(decision: Decision) -> Float:
    return squared(decision.metric, np.array(decision.threshold))


def _alike(decision: Decision, a: Float, b: Float) -> Rate:
    return _rate(is_same(decision, distances(decision.metric, a, b)))


def _rate(there: Bools) -> Rate:
    return Rate(int(there.sum()), len(there))


def reconstruct_faces(
    target: str,
    surrogate: str,
    pairs: PairSet | Path | str,
    *,
    faces: PairSet | Path | str | None = None,
    profile: str = "none",
    execution: Execution | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Reconstruction:
    """Rebuild faces that a verifier accepts from its scores of a fixed set of faces.

    Args:
        target: the attacked verifier, as for an audit.
        surrogate: the attacker's own model, as for an audit. The target itself is the strongest attacker's.
        pairs: the people to attack; see `load_pairs`.
        faces: the fixed set of faces; see `load_pairs`. The default is the generated faces.
        profile: the profile that the target is deployed with.
        execution: how ONNX Runtime runs both models.
        seed: seed of random choices.
        progress: shows the people.

    Raises:
        SixpixelsError: a verifier, the pairs or the faces cannot be used.
    """
    ran = execution or Execution()
    judge = local_judge(find_manifest(target), find_profile(profile), ran, seed)
    return run_reconstruction(
        judge, find_manifest(surrogate), find_pairs(pairs), find_pairs(faces), Momentum(), ran, seed, progress
    )
