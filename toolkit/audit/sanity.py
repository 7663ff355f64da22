"""Sanity of an audit: what a weak attack, a masked gradient or a wrong model would give away.

The checks are those of Carlini et al. 2019 (arXiv:1902.06705, section 4) and Athalye et al. 2018 (arXiv:1802.00420,
section 3.1), on the pairs of the run itself. One that fails makes the run invalid: its low success rates may be the
attacks' fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Bools, Images, Runtime, Task, Trained, ascent, margins, to_unit
from toolkit.attacks.norms import per_image, sizes
from toolkit.attacks.pgd import Pgd
from toolkit.audit.craft import make_task
from toolkit.audit.plan import ADAPTIVE, Scenario
from toolkit.audit.replay import CleanRun, Replay
from toolkit.export.parity import compare
from toolkit.faces.crops import CropSet
from toolkit.profiles.profile import Profile
from toolkit.statistics.tests import mcnemar
from toolkit.verifiers.manifest import Decision

if TYPE_CHECKING:
    from toolkit.verifiers.white_box import WhiteBox

Outcome = tuple[Scenario, Replay]
CheckName = Literal["parity", "gradient", "iterative", "adaptive", "unbounded", "budget", "converged"]

_LEVEL = 0.05
# Pairs on which gradients are looked at, and on which an attack is run again.
_LOOKED_AT, AGAIN = 16, 8
# Of these pairs as many must be brought nearer to the goal by the gradient than by chance.
_NEARER = 0.8
# RMS lengths of steps along a gradient: within the linear range of a smooth model, and beyond a coarse model's levels.
_STEPS_RMS = (0.25 / 255, 1 / 255, 4 / 255)
# Share of clean decisions in which the attacked and the deployed model may differ.
_FLIPS = 0.02
# A median norm that more steps make this much smaller was not the smallest.
_SHRINKS = 0.9
_UNBOUNDED = Pgd(name="pgd without a bound", epsilon=1.0, steps=100, step=4 / 255)


@dataclass(frozen=True)
class Check:
    """One check: what it is about, whether it passed, and the numbers in words."""

    name: CheckName
    about: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Subject:
    """A profile as an attacker sees it who knows it, and the deployed verifier on the pairs as they are."""

    profile: Profile
    model: WhiteBox
    clean: CleanRun


def check_outcomes(outcomes: Sequence[Outcome], clean: dict[Profile, CleanRun]) -> list[Check]:
    """What can be told from the outcomes alone: iterative beside one-step attacks, adaptive beside oblivious ones."""
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
    one_step = [(a, r) for a, r in gradient if not _steps(a) and not isinstance(a, Trained)]
    iterative = [(a, r) for a, r in gradient if _steps(a) and not getattr(a, "masked", False)]
    checks = []
    for attack, replayed in one_step if iterative else ():
        # An attack that is bound to a ball is asked only for what lies in it.
        asked = replayed.success & eligible
        if all(_epsilon(a) is not None for a, _ in iterative):
            asked &= np.any([_within(a, replayed) for a, _ in iterative], axis=0)
        reached = np.any([r.success & eligible for _, r in iterative], axis=0)
        names = ", ".join(a.name for a, _ in iterative)
        checks.append(_stronger("iterative", profile.name, names, reached, attack.name, asked))
    return checks


def _within(attack: Attack, replayed: Replay) -> Bools:
    norm = replayed.l2 if getattr(attack, "norm", "linf") == "l2" else replayed.linf
    return np.asarray(norm <= (_epsilon(attack) or 0) * (1 + 1e-5))


def _stronger(name: CheckName, about: str, strong: str, strong_success: Bools, weak: str, weak_success: Bools) -> Check:
    """Pair by pair; a difference that chance explains is no fault."""
    only_weak, only_strong = int((weak_success & ~strong_success).sum()), int((strong_success & ~weak_success).sum())
    passed = only_weak <= only_strong or mcnemar(only_strong, only_weak) >= _LEVEL
    return Check(name, about, passed, f"{only_weak} pairs fell to {weak} alone, {only_strong} to {strong} alone")


def check_profile(subject: Subject, crops: CropSet, decision: Decision, seed: int) -> list[Check]:
    """Whether the gradients are of what is deployed, and lead anywhere."""
    used, index = np.unique(crops.index[: 4 * _LOOKED_AT], return_inverse=True)
    images = to_unit(crops.images[used])
    index = index.reshape(-1, 2)
    sides = subject.model.runtime.embed(images), subject.model.original.embed(images)
    parity = compare(*sides, index, decision, subject.profile.name)
    same = Check(
        "parity",
        subject.profile.name,
        parity.flips <= _FLIPS * parity.pairs,
        f"{parity.flips} of {parity.pairs} clean decisions differ between gradients and deployment, "
        f"embeddings by {parity.largest_embedding_difference:.1e}",
    )
    return [same, _gradients(subject, crops, decision, seed)] if subject.clean.eligible.any() else [same]


def _gradients(subject: Subject, crops: CropSet, decision: Decision, seed: int) -> Check:
    """A step along the gradient must bring pairs nearer to the goal than a random one of the same length does."""
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
        f"the gradient leads {nearer} of {len(task)} pairs nearer to the goal than a random step"
        + (f"; {zero} gradients are zero" if zero else ""),
    )


def _gain(model: Runtime, task: Task, directions: Images) -> NDArray[np.float64]:
    """What the best of some steps along a direction gains of the way to the goal."""
    rows = np.arange(len(task))
    unit = directions * per_image(1 / np.maximum(sizes("l2", directions), 1e-30))
    stepped = [task.probes + np.float32(rms * np.sqrt(unit[0].size)) * unit for rms in _STEPS_RMS]
    after = np.max([margins(model, task, rows, np.clip(images, 0, 1)) for images in stepped], axis=0)
    return np.asarray(after - margins(model, task, rows, task.probes))


def check_attacks(
    subject: Subject, outcomes: Sequence[Outcome], crops: CropSet, decision: Decision, seed: int
) -> list[Check]:
    """Run gradient attacks that know the profile again, on few pairs: without a bound, in other balls, for longer.

    Not those that are trained on the run's other pairs: few pairs are none to train on.
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
        if _epsilon(attack) is not None:
            checks.append(_budget(about, attack, replayed, again))
        if _steps(attack):
            checks.append(_converged(about, attack, replayed, again))
    return checks


@dataclass(frozen=True)
class Again:
    """What came of running an attack again on the pairs `rows`."""

    rows: NDArray[np.intp]
    success: Bools
    l2: NDArray[np.float64]


def _unbounded(subject: Subject, mine: Sequence[tuple[Attack, Replay]], again: Callable[..., Again]) -> Check:
    """Without a bound every pair must fall: any image is among the probes."""
    unsolved = subject.clean.eligible & ~np.any([r.crafted for _, r in mine], axis=0)
    about, left = subject.profile.name, int(unsolved.sum())
    if not left:
        return Check("unbounded", about, True, "every eligible pair fell to a gradient attack")
    result = again(_UNBOUNDED, _UNBOUNDED.name, unsolved)
    found = int(result.success.sum())
    return Check(
        "unbounded",
        about,
        found == len(result.rows),
        f"of {left} pairs that no gradient attack solved, {found} of {len(result.rows)} fell to one without a bound",
    )


def _budget(about: str, attack: Any, replayed: Replay, again: Callable[..., Again]) -> Check:
    """Success must grow with the ball; a single pair may be luck."""
    half, double = (again(replace(attack, epsilon=factor * attack.epsilon), attack.name) for factor in (0.5, 2.0))
    counts = [int(half.success.sum()), int(replayed.crafted[half.rows].sum()), int(double.success.sum())]
    return Check(
        "budget",
        about,
        counts[0] <= counts[1] + 1 and counts[1] <= counts[2] + 1,
        f"of {len(half.rows)} pairs {counts[0]}, {counts[1]} and {counts[2]} fall within half, one and two bounds",
    )


def _converged(about: str, attack: Any, replayed: Replay, again: Callable[..., Again]) -> Check:
    """Twice the steps must change little."""
    longer = again(replace(attack, steps=2 * attack.steps), attack.name)
    before = replayed.crafted[longer.rows]
    both = before & longer.success
    ratio = 1.0
    if _epsilon(attack) is None and both.any():
        ratio = float(np.median(longer.l2[both] / replayed.l2[longer.rows][both]))
    return Check(
        "converged",
        about,
        longer.success.sum() <= before.sum() + 1 and ratio >= _SHRINKS,
        f"with twice the steps {longer.success.sum()} instead of {before.sum()} of {len(before)} pairs fall, "
        f"at {ratio:.2f} times the norm",
    )


def _sample(
    subject: Subject, crops: CropSet, decision: Decision, seed: int, drawn: str, most: int, among: Bools | None = None
) -> tuple[Task, NDArray[np.intp]]:
    """At most `most` eligible pairs, the same at every run, with the random numbers of the attack `drawn`."""
    clean = subject.clean
    eligible = clean.eligible if among is None else clean.eligible & among
    rows = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(eligible))[:most])
    references = clean.embeddings[crops.index[rows, 1]]
    return make_task(drawn, crops, rows, references, decision, seed, clean.alarm), rows


def _steps(attack: Attack) -> int:
    """How many steps an attack takes; 0 for one that takes a single one."""
    return int(getattr(attack, "steps", 0))


def _epsilon(attack: Attack) -> float | None:
    """The bound of an attack that has one."""
    value = getattr(attack, "epsilon", None)
    return None if value is None else float(value)
