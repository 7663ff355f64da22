"""What an attack is, what it is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.norms import Ball
from toolkit.errors import InputError
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import distances, is_same

Images = NDArray[np.float32]
Bools = NDArray[np.bool_]
Needs = Literal["runtime", "gradient"]

# Scales tried to carry a float perturbation over to 8 bits: 5 % apart, up to about 70.
_SCALES = 1.05 ** np.arange(88)
_SCALES_STRIDE = 6
# Rungs of a ladder that go into one batch.
_AT_ONCE = 5
# How often `carry_to_8bit` runs the model for one pair at most: what an attack with a budget keeps back for it.
CARRY_RUNS = -(-len(_SCALES) // _SCALES_STRIDE) + 1 + 2 * (_SCALES_STRIDE - 1)
# By how much of the threshold a success is clear of rounding: forms of one model differ in the last digits.
CLEARLY = 1e-5
# The share of a detector's alarm that gradients aim for: rounding to 8 bits raises an attack score again.
AIM = 0.75


class Runtime(Protocol):
    """What a noise or query attack sees."""

    def embed(self, crops: Images) -> NDArray[np.float32]:
        """Embeddings (N, D) of crops (N, H, W, 3) in [0, 1]."""
        ...

    def embed_and_score(self, crops: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`embed`, and the attack scores (N,) of a detector; called only where a task has an `alarm`."""
        ...


class Gradients(Runtime, Protocol):
    """What a gradient attack sees."""

    def distances(self, crops: Images, references: NDArray[np.float32]) -> NDArray[np.float64]:
        """The distances of `distances_and_gradients`, without the price of the gradients."""
        ...

    def distances_and_gradients(
        self, crops: Images, references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], Images]:
        """Distances (N,) to reference embeddings (N, D), and gradients with respect to the crops."""
        ...

    def scores_and_gradients(self, crops: Images) -> tuple[NDArray[np.float64], Images]:
        """Attack scores (N,) and their gradients; called only where a task has an `alarm`."""
        ...


@dataclass(frozen=True)
class Task:
    """A batch of pairs to attack.

    Attributes:
        probes: (N, H, W, 3), RGB in [0, 1], of 8-bit origin.
        references: (N, D), the references' embeddings by the model that is attacked.
        dodging: (N,), True where the goal is to be judged different, False for impersonation.
        decision: the metric and threshold.
        generators: one random generator per pair, so that a pair's result does not depend on its batch.
        start: (N, H, W, 3), an image that reaches the goal, where the attacker has one: to impersonate, the
            reference's own photograph. Only attacks that see nothing but decisions look at it.
        landmarks: (5, 2), where eyes, nose and mouth lie in every crop, x and y in pixels; None where it is not known.
        universal: (N, H, W, 3), what an attack that is trained beforehand (`Trained`) gives to each pair.
        alarm: the attack score above which the attacked model flags an image; infinite without a detector.
        eight_bits: whether successes are carried over to 8 bits; where not, no 8-bit probe counts as one. Other
            libraries stop at floats, and are compared with this.
    """

    probes: Images
    references: NDArray[np.float32]
    dodging: Bools
    decision: Decision
    generators: tuple[np.random.Generator, ...]
    start: Images | None = None
    alarm: float = np.inf
    landmarks: NDArray[np.float64] | None = None
    universal: Images | None = None
    eight_bits: bool = True

    def __len__(self) -> int:
        return len(self.probes)


@dataclass(frozen=True)
class Crafted:
    """Adversarial probes for a task.

    Attributes:
        probes: (N, H, W, 3) float32, the float result; the clean probe where the attack failed.
        success: (N,), whether the attacked model's decision flipped on the float result.
        probes8: (N, H, W, 3) uint8, what can be sent to a deployed verifier.
        success8: (N,), whether the decision flipped on the 8-bit result.
        evaluations: (N,), how many times the model was run for the pair (a gradient counts as one).
    """

    probes: Images
    success: Bools
    probes8: NDArray[np.uint8]
    success8: Bools
    evaluations: NDArray[np.int64]

    @cached_property
    def in_8bit(self) -> bool:
        """Whether the float result is the 8-bit one."""
        return np.array_equal(self.success, self.success8) and np.array_equal(self.probes, to_unit(self.probes8))


class Attack(Protocol):
    """A frozen dataclass whose fields are the attack's parameters."""

    @property
    def name(self) -> str:
        """The name on the command line and in reports."""
        ...

    @property
    def needs(self) -> Needs:
        """Whether the attack needs gradients or only the runtime."""
        ...

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair of `task`, through `margins` and `ascent` alone; on the runtime, `margins` alone."""
        ...


@runtime_checkable
class Trained(Attack, Protocol):
    """An attack that learns one perturbation from other people's photographs before it is crafted."""

    def train(self, model: Gradients, task: Task) -> Images:
        """A perturbation (H, W, 3) learned from the probes of `task`; its first generator gives all random numbers."""
        ...


def to_8bit(images: Images) -> NDArray[np.uint8]:
    """Round images in [0, 1] to the nearest of 256 levels."""
    levels = images * np.float32(255)
    np.rint(levels, out=levels)
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def to_unit(images: NDArray[np.uint8]) -> Images:
    """8-bit images as float32 in [0, 1]."""
    return np.divide(images, np.float32(255), dtype=np.float32)


def flipped(d: NDArray[np.float64], dodging: Bools, decision: Decision) -> Bools:
    """Whether each distance (N,) reaches its goal: "different" when dodging, "same" for impersonation."""
    same = is_same(decision, d)
    return np.where(dodging, ~same, same)


def margins(model: Runtime, task: Task, rows: NDArray[np.intp], images: Images) -> NDArray[np.float64]:
    """How far images (M, ...) are from the goal: negative until it is reached, in units of the distance.

    Where the model has a detector, the goal is to pass it as well: the margin is the smaller of the decision's and
    the detector's (`_unnoticed`), so that what looks for a positive margin looks for both.
    """
    if np.isinf(task.alarm):
        embeddings, unnoticed = model.embed(images), np.full(len(images), np.inf)
    else:
        embeddings, scores = model.embed_and_score(images)
        unnoticed, _ = _unnoticed(task, scores)
    d = distances(task.decision.metric, embeddings, task.references[rows])
    return np.minimum(np.where(task.dodging[rows], 1.0, -1.0) * (d - task.decision.threshold), unnoticed)


def _unnoticed(task: Task, scores: NDArray[np.floating], share: float = 1.0) -> tuple[NDArray[np.float64], Images]:
    """How far attack scores (M,) are below a `share` of the alarm, and the slope of that in the score, both (M,).

    Scaled so that a score of zero is as far as a distance of zero. Scores that grow with the square of the embedding's
    shift are measured by their root, so that steps along a linearized margin go as far as they should. To attack
    verifier and detector as one is the way of Carlini & Wagner (2017, arXiv:1705.07263).
    """
    power = 1.0 if task.decision.metric == "euclidean" else 0.5
    relative = np.asarray(scores, np.float64) / (share * task.alarm)
    slope = -power * task.decision.threshold / (share * task.alarm) * np.maximum(relative, 1e-6) ** (power - 1)
    return task.decision.threshold * (1 - relative**power), slope.astype(np.float32)


def reached(task: Task, rows: NDArray[np.intp], margin: NDArray[np.float64]) -> Bools:
    """Whether margins (M,) are on the goal's side: dodging succeeds at the threshold itself, impersonation below it."""
    return np.where(task.dodging[rows], margin >= 0, margin > 0)


def clearly_reached(task: Task, rows: NDArray[np.intp], margin: NDArray[np.float64]) -> Bools:
    """`reached`, by more than the last digits in which two forms of one model differ.

    What looks for the smallest perturbation ends at the boundary itself, and its success must still be one
    when the same model is run without gradients.
    """
    return reached(task, rows, margin - CLEARLY * task.decision.threshold)


def ascent(model: Gradients, task: Task, rows: NDArray[np.intp], images: Images) -> tuple[NDArray[np.float64], Images]:
    """How far images (M, ...) are from the goal, and the direction that brings them nearer.

    Returns:
        Margins (M,) as of `margins`, but with the share `AIM` of the alarm, and their gradients: of the decision or of
        the detector, whichever lacks more.

    Raises:
        InputError: a gradient is NaN or infinite.
    """
    d, gradient = model.distances_and_gradients(images, task.references[rows])
    sign = np.where(task.dodging[rows], 1.0, -1.0)
    margin, gradient = sign * (d - task.decision.threshold), gradient * sign.astype(np.float32)[:, None, None, None]
    if np.isfinite(task.alarm):
        scores, of_score = model.scores_and_gradients(images)
        unnoticed, slope = _unnoticed(task, scores, AIM)
        seen = unnoticed < margin
        margin = np.minimum(margin, unnoticed)
        gradient[seen] = slope[seen, None, None, None] * of_score[seen]
    if not np.isfinite(gradient).all():
        raise InputError("the gradient of the model has NaN or infinite values: no gradient attack can be run on it")
    return margin, gradient


def ascent_margins(model: Gradients, task: Task, rows: NDArray[np.intp], images: Images) -> NDArray[np.float64]:
    """The margins (M,) of `ascent`, without the price of the gradients; for tasks without an alarm."""
    d = model.distances(images, task.references[rows])
    return np.where(task.dodging[rows], 1.0, -1.0) * (d - task.decision.threshold)


class CandidateMaker(Protocol):
    """Images (M, H, W, 3) of the pairs `rows` (M,), each at its own rung (M,) of a ladder."""

    def __call__(self, rows: NDArray[np.intp], rungs: NDArray[np.intp], /) -> Images:
        """Make them."""
        ...


@dataclass(frozen=True)
class Climb:
    """What a climb found, for each pair.

    Attributes:
        rung: (M,), the first rung that reached the goal, -1 where none did.
        nearest: (M,), the rung that came nearest to the goal.
        runs: (M,), the number of images run.
    """

    rung: NDArray[np.intp]
    nearest: NDArray[np.intp]
    runs: NDArray[np.int64]


def first_success(
    model: Runtime,
    task: Task,
    rows: NDArray[np.intp],
    ladders: NDArray[np.intp],
    at_once: int,
    make: CandidateMaker,
    first: int | None = None,
) -> Climb:
    """Find, for each pair of `rows`, the first rung of its ladder that reaches the goal.

    Several rungs are tried in one batch, and pairs leave as they are solved.

    Args:
        model: what is attacked.
        task: the pairs.
        rows: (M,), the pairs to look at.
        ladders: (M, K), the rungs to try for each pair, in order; negative ones are not tried.
        at_once: how many rungs go into one batch.
        make: gives the images of some pairs at their rungs.
        first: how many go into the first batch, and twice as many into each that follows, up to `at_once`; by default
            as many as ever.
    """
    rung, nearest = np.full((2, len(rows)), -1, np.intp)
    best = np.full(len(rows), -np.inf)
    runs = np.zeros(len(rows), np.int64)
    start, end = 0, first or at_once
    while start < ladders.shape[1]:
        who, column = np.nonzero(ladders[:, start:end] >= 0)
        open_ = rung[who] < 0
        who, column = who[open_], column[open_] + start
        start, end = end, end + min(2 * (end - start), at_once)
        if not len(who):
            continue
        tried = ladders[who, column]
        margin = margins(model, task, rows[who], make(rows[who], tried))
        hit = reached(task, rows[who], margin)
        runs += np.bincount(who, minlength=len(rows))
        # From the last rung to the first, so that the first of several hits remains.
        rung[who[hit][::-1]] = tried[hit][::-1]
        for pair in np.unique(who):
            at = np.flatnonzero(who == pair)
            top = at[np.argmax(margin[at])]
            if margin[top] > best[pair]:
                best[pair], nearest[pair] = margin[top], tried[top]
    return Climb(rung, nearest, runs)


def smallest_success(
    model: Runtime,
    task: Task,
    rows: NDArray[np.intp],
    rungs: int,
    stride: int,
    make: CandidateMaker,
    at_once: int = _AT_ONCE,
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Find the smallest of a ladder's rungs that reaches the goal, from coarse to fine.

    Every `stride`-th rung first; then those below the first success. Where no coarse rung succeeds, the rungs around
    the nearest one are tried: a goal that is reached at some strengths only is not missed. As long as success lasts
    for `stride` rungs once it begins, the result is that of trying every rung.

    Returns:
        The rung of each pair (M,), -1 where none was found, and the number of images run for it (M,).
    """
    coarse = np.unique([*range(0, rungs, stride), rungs - 1])
    # Many are reached by the first few rungs.
    climb = first_success(model, task, rows, np.tile(coarse, (len(rows), 1)), at_once, make, first=1)
    solved = climb.rung >= 0
    around = np.where(solved, climb.rung, climb.nearest)[:, None] + np.arange(1 - stride, stride)
    tried = (around < 0) | (around >= rungs) | np.isin(around, coarse)
    fine = np.where(tried | (solved[:, None] & (around >= climb.rung[:, None])), -1, around)
    finer = first_success(model, task, rows, fine, 2 * stride, make)
    return np.where(finer.rung >= 0, finer.rung, climb.rung), climb.runs + finer.runs


def carry_to_8bit(
    model: Runtime, task: Task, probes: Images, success: Bools, ball: Ball | None = None
) -> tuple[NDArray[np.uint8], Bools, NDArray[np.int64]]:
    """Find 8-bit probes near successful float ones.

    Rounding wipes out most of a perturbation below half a level, so it is scaled up in small steps until the
    rounded probe succeeds: a large scale with rounding moves just the pixels that matter most. An attack that
    is bound to a ball around the clean probe stays in it.

    Returns:
        8-bit probes (the clean ones where there is no success), their success, and the images run for each.
    """
    rows = np.flatnonzero(success & task.eight_bits)
    delta = probes - task.probes

    def scaled(rows: NDArray[np.intp], rungs: NDArray[np.intp]) -> Images:
        clean, scales = task.probes[rows], _SCALES[rungs].astype(np.float32)[:, None, None, None]
        images = np.clip(clean + scales * delta[rows], 0, 1)
        return to_unit(to_8bit(images)) if ball is None else ball.round(clean, ball.project(clean, images))

    # What fills its ball is mostly sent as it is: the first scale does.
    at_once = _AT_ONCE if ball is None else 1
    rungs, runs = smallest_success(model, task, rows, len(_SCALES), _SCALES_STRIDE, scaled, at_once)
    probes8 = to_8bit(task.probes)
    found = rungs >= 0
    if found.any():
        probes8[rows[found]] = to_8bit(scaled(rows[found], rungs[found]))
    success8 = np.zeros(len(task), np.bool_)
    success8[rows] = rungs >= 0
    evaluations = np.zeros(len(task), np.int64)
    evaluations[rows] = runs
    return probes8, success8, evaluations


def finish(
    model: Runtime,
    task: Task,
    probes: Images,
    success: Bools,
    evaluations: NDArray[np.int64],
    ball: Ball | None = None,
) -> Crafted:
    """The result of an attack that worked on float probes: failures are clean, successes carried to 8 bits."""
    probes = np.where(success[:, None, None, None], probes, task.probes)
    probes8, success8, runs8 = carry_to_8bit(model, task, probes, success, ball)
    return Crafted(probes, success, probes8, success8, evaluations + runs8)
