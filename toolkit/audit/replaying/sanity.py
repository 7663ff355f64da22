"""Sanity checks of an audit: signs of weak attacks, masked gradients or a wrong model.

The checks follow Carlini et al. 2019 (arXiv:1902.06705, section 4) and Athalye et al. 2018 (arXiv:1802.00420, section
3.1). They use the pairs of the run itself. If a check fails, the run is invalid: low success rates may mean that the
attacks are weak, not that the defense is strong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Runtime, Task, Trained, ascent, margins
from toolkit.attacks.norms import per_image, sizes
from toolkit.attacks.pgd import Pgd
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.craft import make_task
from toolkit.audit.plan import ADAPTIVE, Scenario
from toolkit.audit.replaying.replay import Replay
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, Images, to_unit
from toolkit.profiles.profile import Profile
from toolkit.statistics.tests import mcnemar
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.parity import compare

if TYPE_CHECKING:
    from toolkit.verifiers.white_box import WhiteBox

Outcome = tuple[Scenario, Replay]
CheckName = Literal["parity", "gradient", "iterative", "adaptive", "unbounded", "budget", "converged"]

_LEVEL = 0.05
# Number of pairs to check gradients on, and to run an attack again on.
_LOOKED_AT, AGAIN = 16, 8
# Share of pairs on which a step along the gradient must gain more than a random step.
_NEARER = 0.8
# RMS lengths of these steps. Short ones suit smooth models; long ones cross the levels of a quantized input.
_STEPS_RMS = (0.25 / 255, 1 / 255, 4 / 255)
# Largest share of clean decisions in which the attacked and the deployed model may differ.
_FLIPS = 0.02
# An attack has converged if twice the steps do not shrink its median norm below this factor.
_SHRINKS = 0.9
_UNBOUNDED = Pgd(name="pgd without a bound", epsilon=1.0, steps=100, step=4 / 255)


@dataclass(frozen=True)
class Check:
    """The result of one check: its name, its subject, whether it passed, and the measured numbers in words."""

    name: CheckName
    about: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Subject:
    """A profile to check: the model that an attacker who knows it sees, and the clean run of the deployed verifier."""

    profile: Profile
    model: WhiteBox
    clean: CleanRun


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
    one_step = [(a, r) for a, r in gradient if not a.traits.steps and not isinstance(a, Trained)]
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
    used, index = np.unique(crops.index[: 4 * _LOOKED_AT], return_inverse=True)
    images = to_unit(crops.images[used])
    index = index.reshape(-1, 2)
    sides = subject.model.runtime.embed(images), subject.model.original.embed(images)
    parity = compare(*sides, index, decision, subject.profile.name)
    same = Check(
        "parity",
        subject.profile.name,
        parity.flips <= _FLIPS * parity.pairs,
        f"{parity.flips} of {parity.pairs} clean decisions differ between the gradient model and the deployed model, "
        f"and embeddings differ by up to {parity.largest_embedding_difference:.1e}",
    )
    return [same, _gradients(subject, crops, decision, seed)] if subject.clean.eligible.any() else [same]


def _gradients(subject: Subject, crops: CropSet, decision: Decision, seed: int) -> Check:
    """A step along the gradient must come nearer to the goal than a random step of the same length."""
    task, _ = _sample(subject, crops, decision, seed, "gradient", _LOOKED_AT)
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


def check_attacks(
    subject: Subject, outcomes: Sequence[Outcome], crops: CropSet, decision: Decision, seed: int
) -> list[Check]:
    """Run gradient attacks that know the profile again on a few pairs: unbounded, with other bounds, with more steps.

    Attacks that must be trained are skipped, because a few pairs are not enough to train them.

    Args:
        subject: the profile.
        outcomes: the results of all scenarios.
        crops: the pairs.
        decision: metric and threshold.
        seed: seed of the audit.

    Raises:
        InputError: the gradients cannot be computed.
    """
    mine = [
        (s.attack, r)
        for s, r in outcomes
        if s.profile == s.known == subject.profile
        and s.attack.needs == "gradient"
        and not isinstance(s.attack, Trained)
    ]
    if not mine:
        return []

    def again(attack: Attack, drawn: str, among: Bools | None = None) -> Again:
        task, rows = _sample(subject, crops, decision, seed, drawn, AGAIN, among)
        crafted = attack.craft(subject.model, task)
        return Again(rows, crafted.success8, sizes("l2", to_unit(crafted.probes8) - task.probes))

    checks = [_unbounded(subject, mine, again)]
    for attack, replayed in mine:
        about = f"{attack.name} on {subject.profile.name}"
        if attack.traits.epsilon is not None:
            checks.append(_budget(about, attack, replayed, again))
        if attack.traits.steps:
            checks.append(_converged(about, attack, replayed, again))
    return checks


@dataclass(frozen=True)
class Again:
    """The results of running an attack again on the pairs `rows`, with the L2 norms of its perturbations."""

    rows: NDArray[np.intp]
    success: Bools
    l2: NDArray[np.float64]


def _unbounded(subject: Subject, mine: Sequence[tuple[Attack, Replay]], again: Callable[..., Again]) -> Check:
    """An unbounded attack may use any image, so that it must succeed on every pair."""
    unsolved = subject.clean.eligible & ~np.any([r.crafted for _, r in mine], axis=0)
    about, left = subject.profile.name, int(unsolved.sum())
    if not left:
        return Check("unbounded", about, True, "gradient attacks succeed on every eligible pair")
    result = again(_UNBOUNDED, _UNBOUNDED.name, unsolved)
    found = int(result.success.sum())
    return Check(
        "unbounded",
        about,
        found == len(result.rows),
        f"on {left} pairs no gradient attack succeeds; without a bound, one succeeds on {found} of {len(result.rows)} "
        "of them",
    )


def _budget(about: str, attack: Any, replayed: Replay, again: Callable[..., Again]) -> Check:
    """A larger bound must not lower success, except for one pair by chance."""
    half, double = (again(replace(attack, epsilon=factor * attack.epsilon), attack.name) for factor in (0.5, 2.0))
    counts = [int(half.success.sum()), int(replayed.crafted[half.rows].sum()), int(double.success.sum())]
    return Check(
        "budget",
        about,
        counts[0] <= counts[1] + 1 and counts[1] <= counts[2] + 1,
        f"with half, once and twice the bound, it succeeds on {counts[0]}, {counts[1]} and {counts[2]} of "
        f"{len(half.rows)} pairs",
    )


def _converged(about: str, attack: Any, replayed: Replay, again: Callable[..., Again]) -> Check:
    """Twice the steps must change neither success nor norms by much."""
    longer = again(replace(attack, steps=2 * attack.steps), attack.name)
    before = replayed.crafted[longer.rows]
    both = before & longer.success
    ratio = 1.0
    if attack.traits.epsilon is None and both.any():
        ratio = float(np.median(longer.l2[both] / replayed.l2[longer.rows][both]))
    return Check(
        "converged",
        about,
        bool(longer.success.sum() <= before.sum() + 1) and ratio >= _SHRINKS,
        f"with twice the steps, it succeeds on {longer.success.sum()} instead of {before.sum()} of {len(before)} "
        f"pairs, at {ratio:.2f} times the norm",
    )


def _sample(
    subject: Subject, crops: CropSet, decision: Decision, seed: int, drawn: str, most: int, among: Bools | None = None
) -> tuple[Task, NDArray[np.intp]]:
    """Draw at most `most` eligible pairs, always the same, with the random numbers of the attack `drawn`."""
    clean = subject.clean
    eligible = clean.eligible if among is None else clean.eligible & among
    rows = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(eligible))[:most])
    references = clean.embeddings[crops.index[rows, 1]]
    return make_task(drawn, crops, rows, references, decision, seed, clean.alarm), rows
