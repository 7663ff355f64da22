"""The interface of attacks: their inputs, their results, and the functions that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.norms import Norm, Size, per_image
from toolkit.attacks.two_goals import toward_both
from toolkit.errors import InputError
from toolkit.pixels import Bools, Images, to_unit
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import distances, is_same

Needs = Literal["runtime", "gradient"]

# A success must exceed the threshold by this share of it, because the forms of a model differ by rounding errors.
CLEARLY = 1e-5
# Gradient attacks aim for an attack score below this share of the alarm, because rounding to 8 bits raises the score.
AIM = 0.75
# Steps past verifier and detector are for margins that rise by this share of the threshold.
RISE = 0.02


class Runtime(Protocol):
    """The model as noise and query attacks see it."""

    def embed(self, crops: Images) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of crops (N, H, W, 3) in [0, 1]."""
        ...

    def embed_and_score(self, crops: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the embeddings, and the detector's attack scores (N,). Called only if the task has an `alarm`."""
        ...


class Comparing(Runtime, Protocol):
    """A model that compares two faces itself: its embeddings may stand for crops, or hold several draws."""

    def compare(self, embeddings: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances (N,) of embeddings to references, both from `embed`; NaN where it finds no face."""
        ...


class Gradients(Runtime, Protocol):
    """The model as gradient attacks see it."""

    def distances(self, crops: Images, references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances (N,) of `distances_and_gradients` without computing gradients."""
        ...

    def distances_and_gradients(
        self, crops: Images, references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], Images]:
        """Return distances (N,) to references (N, D), and their gradients (N, H, W, 3) with respect to the crops."""
        ...

    def scores_and_gradients(self, crops: Images) -> tuple[NDArray[np.float64], Images]:
        """Return attack scores (N,) and their gradients (N, H, W, 3). Called only if the task has an `alarm`."""
        ...


@dataclass(frozen=True)
class Task:
    """A batch of pairs to attack.

    Attributes:
        probes: (N, H, W, 3) float32, RGB in [0, 1], converted from 8 bits.
        references: (N, D), the embeddings of the references by the attacked model.
        dodging: (N,), True for dodging (the goal is "different"), False for impersonation (the goal is "same").
        decision: the metric and threshold.
        generators: one random generator per pair, so that a pair's result does not depend on its batch.
        start: (N, H, W, 3), images that reach the goal, for example the reference's own photograph for impersonation.
            None if the attacker has none. Only decision-based attacks use it.
        landmarks: (5, 2), the positions (x, y) of eyes, nose and mouth corners in every crop, in pixels; None if
            unknown.
        universal: (N, H, W, 3), the perturbation that a `Trained` attack learned for each pair; None for other attacks.
        alarm: the attack score above which the attacked model flags an image; infinity without a detector.
        eight_bits: whether to search 8-bit probes for successes. If not, no 8-bit probe counts as a success. This is
            for comparisons with libraries that return float images only.
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
        probes: (N, H, W, 3) float32, the float results; the clean probe if the attack failed.
        success: (N,), whether the attacked model's decision flipped on the float result.
        probes8: (N, H, W, 3) uint8, the results that can be sent to a deployed verifier.
        success8: (N,), whether the decision flipped on the 8-bit result.
        evaluations: (N,), how often the model was run for the pair. A gradient counts as one run.
    """

    probes: Images
    success: Bools
    probes8: NDArray[np.uint8]
    success8: Bools
    evaluations: NDArray[np.int64]

    @cached_property
    def in_8bit(self) -> bool:
        """Whether the float results equal the 8-bit results."""
        return np.array_equal(self.success, self.success8) and np.array_equal(self.probes, to_unit(self.probes8))


@dataclass(frozen=True)
class Traits:
    """The properties that an attack declares. A run stores them, so that later evaluations do not need the attack.

    Attributes:
        budget: the largest number of queries per pair; None if the attack has no query budget.
        minimizes: the `norms.Size` whose smallest perturbation the attack looks for; None if it looks for none.
        norm: the norm of the ball that bounds all perturbations; None without a ball.
        epsilon: the radius of this ball, in units of the pixel range; None without a ball.
        steps: the largest number of iterations of an iterative attack; 0 for other attacks.
        restarts: the largest number of starts of an iterative attack; 0 for other attacks.
        far: whether successes lie as far beyond the boundary as the ball allows, for attackers who do not know the
            deployed profile. Such an attack does not attack a profile that it knows.
        draws: the largest number of noisy images per pair; 0 for attacks that are not noise.
        finest: the smallest standard deviation of the noise, in units of the pixel range; None for other attacks.
        graded: whether a query attack needs to know how near a decision is; the others need the decision alone.
        masked: whether the attack changes only something that a person can wear or print, by any amount. No norm
            budget applies to it.
    """

    budget: int | None = None
    minimizes: Size | None = None
    norm: Norm | None = None
    epsilon: float | None = None
    steps: int = 0
    restarts: int = 0
    far: bool = False
    draws: int = 0
    finest: float | None = None
    graded: bool = False
    masked: bool = False


class Attack(Protocol):
    """An attack: a frozen dataclass whose fields are its parameters."""

    @property
    def name(self) -> str:
        """The name on the command line and in reports."""
        ...

    @property
    def needs(self) -> Needs:
        """Whether the attack needs gradients or only the runtime."""
        ...

    @property
    def traits(self) -> Traits:
        """The properties of the attack with these parameters."""
        ...

    def craft(self, model: Gradients, task: Task) -> Crafted:
        """Attack every pair of `task`.

        The attack must access the model through `margins` and `ascent` only, because they include a detector. Attacks
        that need only the runtime must use `margins`.
        """
        ...


class Worn(Attack, Protocol):
    """An attack that changes only some pixels, which are known before it starts."""

    def pixels(self, landmarks: NDArray[np.float64] | None, height: int, width: int) -> Bools:
        """Return the pixels (H, W) that may change. `landmarks` are those of `Task`.

        Raises:
            InputError: the pixels cannot be known.
        """
        ...


class Trained(Attack, Protocol):
    """An attack that learns one perturbation from photographs of other people before it crafts probes."""

    def train(self, model: Gradients, task: Task) -> Images:
        """Return a perturbation (H, W, 3) learned from the probes of `task`. Use only the task's first generator."""
        ...


def is_worn(attack: Attack) -> TypeGuard[Worn]:
    """Whether an attack is a `Worn` one. A parameter of the same name as its method does not make it one."""
    return callable(getattr(attack, "pixels", None))


def is_trained(attack: Attack) -> TypeGuard[Trained]:
    """Whether an attack is a `Trained` one. A parameter of the same name as its method does not make it one."""
    return callable(getattr(attack, "train", None))


def flipped(d: NDArray[np.float64], dodging: Bools, decision: Decision) -> Bools:
    """Return whether each distance (N,) reaches its goal: "different" for dodging, "same" for impersonation.

    NaN, where no face was found, reaches neither.
    """
    return np.where(dodging, d >= decision.threshold, is_same(decision, d))


# Finds the distances (N,) between embeddings (N, D) and references (N, D).
Measurer = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float64]]


def measurer(model: Runtime, decision: Decision) -> Measurer:
    """How distances between a model's embeddings are found: as the model compares them, or by the metric."""
    return model.compare if _compares(model) else partial(distances, decision.metric)


def _compares(model: Runtime) -> TypeGuard[Comparing]:
    return callable(getattr(model, "compare", None))


def margins(model: Runtime, task: Task, rows: NDArray[np.intp], images: Images) -> NDArray[np.float64]:
    """Return how far images are beyond the goal, in units of the distance. Negative margins do not reach the goal.

    If the model has a detector, the goal is to pass the detector as well. The margin is then the smaller of the
    decision's margin and the detector's margin (`_unnoticed`).

    Args:
        model: the attacked model.
        task: the pairs.
        rows: (M,), the pair of each image.
        images: (M, H, W, 3) in [0, 1].

    Returns:
        (M,) margins.
    """
    if np.isinf(task.alarm):
        embeddings, unnoticed = model.embed(images), np.full(len(images), np.inf)
    else:
        embeddings, scores = model.embed_and_score(images)
        unnoticed, _ = _unnoticed(task, scores)
    d = measurer(model, task.decision)(embeddings, task.references[rows])
    margin = np.where(task.dodging[rows], 1.0, -1.0) * (d - task.decision.threshold)
    # Without a face there is no decision, which is as far from any goal as can be.
    return np.minimum(np.where(np.isnan(d), -task.decision.maximum, margin), unnoticed)


def _unnoticed(
    task: Task, scores: NDArray[np.floating], share: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far attack scores (M,) are below a `share` of the alarm, and the derivative in the score; both (M,).

    The margin is scaled so that it equals the threshold for a score of zero. For scores that grow with the square of
    the embedding's shift, it uses the square root, so that steps along the linearized margin have the right length.
    Attacking verifier and detector together follows Carlini & Wagner (2017, arXiv:1705.07263).
    """
    power = 1.0 if task.decision.metric == "euclidean" else 0.5
    relative = np.asarray(scores, np.float64) / (share * task.alarm)
    slope = -power * task.decision.threshold / (share * task.alarm) * np.maximum(relative, 1e-6) ** (power - 1)
    return task.decision.threshold * (1 - relative**power), slope


def reached(task: Task, rows: NDArray[np.intp], margin: NDArray[np.float64]) -> Bools:
    """Return whether margins (M,) reach the goal.

    A distance at the threshold means "different". A margin of zero is therefore a success for dodging only.
    """
    return np.where(task.dodging[rows], margin >= 0, margin > 0)


def clearly_reached(task: Task, rows: NDArray[np.intp], margin: NDArray[np.float64]) -> Bools:
    """Return whether margins (M,) reach the goal by more than the rounding differences between forms of a model.

    Attacks that search for the smallest perturbation end at the boundary. Their success must also be a success if the
    same model is run without gradients.
    """
    return reached(task, rows, margin - CLEARLY * task.decision.threshold)


def ascent(model: Gradients, task: Task, rows: NDArray[np.intp], images: Images) -> tuple[NDArray[np.float64], Images]:
    """Return the margins of images and their gradients.

    Args:
        model: the attacked model.
        task: the pairs.
        rows: (M,), the pair of each image.
        images: (M, H, W, 3) in [0, 1].

    Returns:
        Margins (M,) as in `margins`, but with the share `AIM` of the alarm; and gradients (M, H, W, 3) of the smaller
        margin, which is the decision's or the detector's. With a detector, the gradients are turned so that the other
        margin does not fall below it (`two_goals`).

    Raises:
        InputError: there is no gradient, or it has values that are not finite.
    """
    d, gradient = model.distances_and_gradients(images, task.references[rows])
    if gradient is None:
        raise InputError("the model has no gradient; choose attacks that need none")
    sign = np.where(task.dodging[rows], 1.0, -1.0)
    margin, gradient = sign * (d - task.decision.threshold), gradient * sign.astype(np.float32)[:, None, None, None]
    if np.isfinite(task.alarm):
        scores, of_score = model.scores_and_gradients(images)
        unnoticed, slope = _unnoticed(task, scores, AIM)
        rise = RISE * task.decision.threshold
        gradient = toward_both(margin, unnoticed, gradient, per_image(slope) * of_score, rise)
        margin = np.minimum(margin, unnoticed)
    if not np.isfinite(gradient).all():
        raise InputError(
            "the gradient of the model has NaN or infinite values; choose attacks that need no gradient for this model"
        )
    return margin, gradient


def ascent_margins(model: Gradients, task: Task, rows: NDArray[np.intp], images: Images) -> NDArray[np.float64]:
    """Return the margins (M,) of `ascent` without computing gradients. This is valid only without an alarm."""
    d = model.distances(images, task.references[rows])
    return np.where(task.dodging[rows], 1.0, -1.0) * (d - task.decision.threshold)
