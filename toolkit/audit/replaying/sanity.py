"""Sanity checks of an audit: signs of weak attacks, masked gradients or a wrong model.

The checks follow Carlini et al. 2019 (arXiv:1902.06705, section 4), Athalye et al. 2018 (arXiv:1802.00420, section 3.1)
and the indicators of Pintor et al. 2022 (arXiv:2106.09947). They use the pairs of the run itself. If a check fails, the
run is invalid: low success rates may mean that the attacks are weak, not that the defense is strong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import CLEARLY, Attack, Runtime, Task, ascent, is_trained, margins, measurer
from toolkit.attacks.norms import per_image, sizes
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.craft import make_task
from toolkit.audit.plan import ADAPTIVE, Scenario
from toolkit.audit.replaying.replay import Replay
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, Float, Images, to_8bit, to_unit
from toolkit.profiles.profile import Profile
from toolkit.statistics.tests import mcnemar
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import is_same

if TYPE_CHECKING:
    from toolkit.verifiers.white_box import WhiteBox

Outcome = tuple[Scenario, Replay]
CheckName = Literal[
    "parity", "gradient", "stable", "iterative", "adaptive", "masking", "unbounded", "budget", "converged", "restarts",
    "progress", "bounds", "certificates",
]  # fmt: skip

_LEVEL = 0.05
# Number of pairs to check gradients on, and to run an attack again on.
_LOOKED_AT, AGAIN = 16, 8
# Share of pairs on which a step along the gradient must gain more than a random step.
_NEARER = 0.8
# RMS lengths of these steps. Short ones suit smooth models; long ones cross the levels of a quantized input.
_STEPS_RMS = (0.25 / 255, 1 / 255, 4 / 255)
# Probes that the parity check takes of one chunk, and chunks that it takes probes of.
SAMPLED, SAMPLES = 2, 16
# Largest share of decisions in which the attacked and the deployed model may differ.
_FLIPS = 0.02
# Largest share of pairs whose distances may differ by more than rounding. A defense that rounds or draws can turn a
# rounding error of one value into a whole step of it.
_APART = 0.1
# Largest change of the margin, as a share of the threshold, by noise of a quarter of a level; draws of this noise.
_UNSTABLE, _NOISE, _NEIGHBORS = 0.1, 0.25 / 255, 3


@dataclass(frozen=True)
class Check:
    """The result of one check: its name, its subject, whether it passed, and the measured numbers in words."""

    name: CheckName
    about: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Sample:
    """Some float probes (m, H, W, 3) that were crafted for the pairs `rows` (m,)."""

    rows: NDArray[np.intp]
    probes: Images


@dataclass(frozen=True)
class Subject:
    """A profile to check.

    Attributes:
        profile: the profile.
        model: the model that an attacker who knows the profile sees.
        clean: the clean run of the deployed verifier.
        samples: some probes that were crafted against the profile.
        rounding: what two forms of the model may differ by, as a share of a distance; see `rounding_of`.
        of_bytes: whether the model takes bytes. It is then compared on probes of 8 bits: a filter puts values of float
            probes between two levels, where the two forms round to either.
    """

    profile: Profile
    model: WhiteBox
    clean: CleanRun
    samples: tuple[Sample, ...] = ()
    rounding: float = CLEARLY
    of_bytes: bool = False


def check_outcomes(outcomes: Sequence[Outcome], clean: dict[Profile, CleanRun]) -> list[Check]:
    """Run the checks that need only the outcomes.

    Iterative attacks must succeed at least as often as one-step attacks, and adaptive attacks as often as others.

    Args:
        outcomes: the results of all scenarios.
        clean: the clean run of each deployed profile.
    """
    checks = []
    for profile in dict.fromkeys(s.profile for s, _ in outcomes):
        mine = [(s, r) for s, r in outcomes if s.profile == profile]
        eligible = clean[profile].eligible
        checks += _iterative(profile, [(s, r) for s, r in mine if s.knowledge == "perfect"], eligible)
        for attack in dict.fromkeys(s.attack for s, _ in mine):
            by = [(s, r.success & eligible) for s, r in mine if s.attack == attack]
            about = f"{attack.name} on {profile.name}"
            for adaptive, strong in (o for o in by if o[0].knowledge in ADAPTIVE):
                for other, weak in (o for o in by if o[0].knowledge not in ADAPTIVE):
                    names = f"{adaptive.knowledge} knowledge", f"knowledge of {other.known.name}"
                    checks.append(_stronger("adaptive", about, names[0], strong, names[1], weak))
    return checks


def _iterative(profile: Profile, outcomes: Sequence[Outcome], eligible: Bools) -> list[Check]:
    gradient = [(s.attack, r) for s, r in outcomes if s.attack.needs == "gradient"]
    one_step = [(a, r) for a, r in gradient if not a.traits.steps and not is_trained(a)]
    iterative = [(a, r) for a, r in gradient if a.traits.steps and not a.traits.masked]
    checks = []
    for attack, replayed in one_step if iterative else ():
        # If every iterative attack is bounded, compare only probes within one of the bounds.
        asked = replayed.success & eligible
        if all(a.traits.epsilon is not None for a, _ in iterative):
            asked &= np.any([_within(a, replayed) for a, _ in iterative], axis=0)
        reached = np.any([r.success & eligible for _, r in iterative], axis=0)
        names = ", ".join(a.name for a, _ in iterative)
        checks.append(_stronger("iterative", profile.name, names, reached, attack.name, asked))
    return checks


def _within(attack: Attack, replayed: Replay) -> Bools:
    norm = replayed.l2 if attack.traits.norm == "l2" else replayed.linf
    return np.asarray(norm <= (attack.traits.epsilon or 0) * (1 + 1e-5))


def _stronger(name: CheckName, about: str, strong: str, strong_success: Bools, weak: str, weak_success: Bools) -> Check:
    """Check that `strong` succeeds at least as often as `weak` on the same pairs, except for differences by chance."""
    only_weak, only_strong = int((weak_success & ~strong_success).sum()), int((strong_success & ~weak_success).sum())
    passed = only_weak <= only_strong or mcnemar(only_strong, only_weak) >= _LEVEL
    return Check(
        name, about, passed, f"only {weak} succeeds on {only_weak} pairs, only {strong} on {only_strong} pairs"
    )


def check_profile(subject: Subject, crops: CropSet, decision: Decision, seed: int) -> list[Check]:
    """Check that the gradients belong to the deployed model, and that they lead toward the goal.

    Args:
        subject: the profile.
        crops: the pairs.
        decision: metric and threshold.
        seed: seed of the audit.

    Raises:
        InputError: the gradients cannot be computed.
    """
    checks = [_parity(subject, crops, decision)]
    if subject.clean.eligible.any():
        checks += [_gradients(subject, crops, decision, seed), _stable(subject, crops, decision, seed)]
    return checks


def _parity(subject: Subject, crops: CropSet, decision: Decision) -> Check:
    """The model that gives the gradients must compute the deployed distances, on clean and on crafted probes."""
    rows = np.arange(min(4 * _LOOKED_AT, len(crops.pairs)))
    chosen = [(rows, to_unit(crops.images[crops.index[rows, 0]]))]
    if subject.samples:
        rows = np.concatenate([sample.rows for sample in subject.samples])
        probes = np.concatenate([sample.probes for sample in subject.samples])
        chosen.append((rows, to_unit(to_8bit(probes)) if subject.of_bytes else probes))
    passed, words = True, []
    for kind, (rows, images) in zip(("clean", "crafted"), chosen, strict=False):
        sides = [_distances(side, images, subject, crops, rows, decision) for side in _sides(subject)]
        same = [is_same(decision, d[0]) for d in sides]
        allowed = subject.rounding * np.maximum(decision.threshold, sides[0])
        apart = (np.abs(sides[0] - sides[1]) > allowed).any(axis=0)
        flips = int((same[0] != same[1]).sum())
        passed &= flips <= _FLIPS * len(rows) and int(apart.sum()) <= _APART * len(rows)
        words.append(
            f"{int(apart.sum())} of {len(rows)} {kind} probes by more than rounding (largest difference "
            f"{np.abs(sides[0] - sides[1]).max():.1e}), with {flips} other decisions"
        )
    detail = "distances of the gradient model and of the deployed model differ on " + ", and on ".join(words)
    return Check("parity", subject.profile.name, passed, detail)


def _sides(subject: Subject) -> tuple[Any, Any]:
    return subject.model.runtime, subject.model.original


def _distances(
    side: Any, images: Images, subject: Subject, crops: CropSet, rows: NDArray[np.intp], decision: Decision
) -> Float:
    """The distances of images to the references of the pairs `rows`, and their attack scores: (1 or 2, m)."""
    scored = np.isfinite(subject.clean.alarm)
    embeddings, scores = side.embed_and_score(images) if scored else (side.embed(images), None)
    d = measurer(side, decision)(embeddings, subject.clean.embeddings[crops.index[rows, 1]])
    return np.stack([d] if scores is None else [d, scores.astype(np.float64)])


def _stable(subject: Subject, crops: CropSet, decision: Decision, seed: int) -> Check:
    """Noise that rounding to 8 bits removes must hardly move the margin that attacks climb."""
    task, _ = sample_task(subject, crops, decision, seed, "stable", AGAIN)
    rows = np.arange(len(task))
    before, _ = ascent(subject.model, task, rows, task.probes)
    moved = []
    for _ in range(_NEIGHBORS):
        noise = np.stack([g.uniform(-_NOISE, _NOISE, task.probes.shape[1:]) for g in task.generators])
        near = np.clip(task.probes + noise.astype(np.float32), 0, 1)
        moved.append(np.abs(ascent(subject.model, task, rows, near)[0] - before))
    change = float(np.mean(moved)) / decision.threshold
    return Check(
        "stable",
        subject.profile.name,
        change <= _UNSTABLE,
        f"noise of a quarter of a level moves the margins of {len(task)} clean probes by {100 * change:.2g} % of the "
        "threshold on average",
    )


def _gradients(subject: Subject, crops: CropSet, decision: Decision, seed: int) -> Check:
    """A step along the gradient must come nearer to the goal than a random step of the same length."""
    task, _ = sample_task(subject, crops, decision, seed, "gradient", _LOOKED_AT)
    _, gradient = ascent(subject.model, task, np.arange(len(task)), task.probes)
    random = np.stack([g.standard_normal(task.probes.shape[1:], np.float32) for g in task.generators])
    gains = _gain(subject.model, task, gradient)
    nearer = int(((gains > 0) & (gains > _gain(subject.model, task, random))).sum())
    zero = int((~gradient.any(axis=(1, 2, 3))).sum())
    return Check(
        "gradient",
        subject.profile.name,
        nearer >= _NEARER * len(task),
        f"for {nearer} of {len(task)} pairs, a step along the gradient comes nearer to the goal than a random step"
        + (f"; {zero} gradients are zero" if zero else ""),
    )


def _gain(model: Runtime, task: Task, directions: Images) -> NDArray[np.float64]:
    """How much nearer to the goal (N,) the best of some steps along `directions` (N, H, W, 3) comes."""
    rows = np.arange(len(task))
    unit = directions * per_image(1 / np.maximum(sizes("l2", directions), 1e-30))
    stepped = [task.probes + np.float32(rms * np.sqrt(unit[0].size)) * unit for rms in _STEPS_RMS]
    after = np.max([margins(model, task, rows, np.clip(images, 0, 1)) for images in stepped], axis=0)
    return np.asarray(after - margins(model, task, rows, task.probes))


def sample_task(
    subject: Subject, crops: CropSet, decision: Decision, seed: int, drawn: str, most: int, among: Bools | None = None
) -> tuple[Task, NDArray[np.intp]]:
    """Draw at most `most` eligible pairs, always the same, with the random numbers of the attack `drawn`."""
    clean = subject.clean
    eligible = clean.eligible if among is None else clean.eligible & among
    rows = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(eligible))[:most])
    references = clean.embeddings[crops.index[rows, 1]]
    return make_task(drawn, crops, rows, references, decision, seed, clean.alarm), rows
