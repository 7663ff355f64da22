"""Sanity checks that run the gradient attacks of an audit again on a few of its pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, is_trained
from toolkit.attacks.norms import sizes
from toolkit.attacks.pgd import Pgd
from toolkit.audit.replaying.replay import Replay, own_norm
from toolkit.audit.replaying.sanity import AGAIN, Check, Outcome, Subject, sample_task
from toolkit.audit.replaying.watch import Watched
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, to_unit
from toolkit.verifiers.manifest import Decision

# The fewest pairs that an attack runs on again, if a run has as many.
_FEWEST_AGAIN = 4
# Pairs that an attack missed, which one start more is tried on; share of its gain that twice the steps may add.
_MISSED, _STILL_GAINS = 4, 0.1
# An attack has converged if twice the steps do not shrink its median norm below this factor.
_SHRINKS = 0.9
_UNBOUNDED = Pgd(name="pgd without a bound", epsilon=1.0, steps=100, step=4 / 255)


def attack_checks(
    subject: Subject,
    outcomes: Sequence[Outcome],
    crops: CropSet,
    decision: Decision,
    seed: int,
    most: int = AGAIN,
) -> list[Callable[[], list[Check]]]:
    """The checks that run gradient attacks that know the profile again on a few pairs. They may run at once.

    The attacks run without a bound, with other bounds, with more steps, and the most successful one with one start
    more. Attacks that must be trained are skipped, because a few pairs are not enough to train them.

    Args:
        subject: the profile.
        outcomes: the results of all scenarios.
        crops: the pairs.
        decision: metric and threshold.
        seed: seed of the audit.
        most: the largest number of pairs; see `pairs_again`.

    Returns:
        Functions that return checks. They raise an InputError if the gradients cannot be computed.
    """
    known = [(s.attack, r) for s, r in outcomes if s.profile == s.known == subject.profile]
    mine = [(a, r) for a, r in known if a.needs == "gradient" and not is_trained(a)]
    if not mine:
        return []

    again = partial(_again, subject, crops, decision, seed, most)
    strongest = _strongest(subject, mine)
    checks: list[Callable[[], list[Check]]] = [partial(_unbounded, subject, mine, again)]
    for attack, replayed in mine:
        if attack.traits.far:
            # It takes all of its steps, and looks for no success: more steps or another ball say nothing of it.
            continue
        about = f"{attack.name} on {subject.profile.name}"
        if attack.traits.epsilon is not None:
            checks.append(partial(_budget, about, attack, replayed, again))
        if attack.traits.steps:
            checks.append(partial(_longer, about, attack, replayed, again, restarted=attack == strongest))
    return checks


def _strongest(subject: Subject, mine: Sequence[tuple[Attack, Replay]]) -> Attack | None:
    """The most successful attack that has starts in a ball."""
    # For a random profile, other starts meet other draws, so that chance alone solves pairs that were missed.
    started = [(a, r) for a, r in mine if hasattr(a, "restarts") and a.traits.epsilon is not None]
    if subject.profile.random or not started:
        return None
    return max(started, key=lambda one: int((one[1].crafted & subject.clean.eligible).sum()))[0]


@dataclass(frozen=True)
class Again:
    """The results of running an attack again on the pairs `rows`, with the sizes of its perturbations in its norm.

    `watched` has the margins that it reached.
    """

    rows: NDArray[np.intp]
    success: Bools
    norms: NDArray[np.float64]
    watched: Watched


def _again(
    subject: Subject,
    crops: CropSet,
    decision: Decision,
    seed: int,
    most: int,
    attack: Attack,
    drawn: str,
    among: Bools | None = None,
) -> Again:
    """Run `attack`. If it has the random numbers of another attack, `drawn`, it explores other starts."""
    task, rows = sample_task(subject, crops, decision, seed, drawn, most, among)
    watched = Watched(subject.model, task)
    crafted = attack.craft(watched, task)
    norm = own_norm(attack.traits) or "l2"
    return Again(rows, crafted.success8, sizes(norm, to_unit(crafted.probes8) - task.probes), watched)


def pairs_again(pairs: int) -> int:
    """On how many of a run's pairs an attack runs again: a quarter, from 4 to 8."""
    return min(AGAIN, max(_FEWEST_AGAIN, pairs // 4))


def _once(attack: Any, **changes: object) -> Any:
    """The attack with other parameters and one start: more starts would cost as much again for each."""
    return replace(attack, **changes, **({"restarts": 1} if hasattr(attack, "restarts") else {}))


def _unbounded(subject: Subject, mine: Sequence[tuple[Attack, Replay]], again: Callable[..., Again]) -> list[Check]:
    """An unbounded attack may use any image, so that it must succeed on every pair."""
    unsolved = subject.clean.eligible & ~np.any([r.crafted for _, r in mine], axis=0)
    about, left = subject.profile.name, int(unsolved.sum())
    if not left:
        return [Check("unbounded", about, True, "gradient attacks succeed on every eligible pair")]
    result = again(_UNBOUNDED, _UNBOUNDED.name, unsolved)
    found = int(result.success.sum())
    detail = (
        f"on {left} pairs no gradient attack succeeds; without a bound, one succeeds on {found} of {len(result.rows)} "
        "of them"
    )
    return [Check("unbounded", about, found == len(result.rows), detail)]


def _budget(about: str, attack: Any, replayed: Replay, again: Callable[..., Again]) -> list[Check]:
    """A larger bound must not lower success, except for one pair by chance."""
    half, double = (again(_once(attack, epsilon=factor * attack.epsilon), attack.name) for factor in (0.5, 2.0))
    counts = [int(half.success.sum()), int(replayed.crafted[half.rows].sum()), int(double.success.sum())]
    detail = (
        f"with half, once and twice the bound, it succeeds on {counts[0]}, {counts[1]} and {counts[2]} of "
        f"{len(half.rows)} pairs"
    )
    return [Check("budget", about, counts[0] <= counts[1] + 1 and counts[1] <= counts[2] + 1, detail)]


def _longer(about: str, attack: Any, replayed: Replay, again: Callable[..., Again], *, restarted: bool) -> list[Check]:
    """Run the attack with twice the steps; if `restarted`, also with one start more."""
    longer = again(_once(attack, steps=2 * attack.traits.steps), attack.name)
    checks = [_converged(about, attack, replayed, longer)]
    return [*checks, *_restarted(about, attack, replayed, longer, again)] if restarted else checks


def _restarted(about: str, attack: Any, replayed: Replay, longer: Again, again: Callable[..., Again]) -> list[Check]:
    """One start more must solve few missed pairs, and twice the steps must hardly raise the margins of the others."""
    missed = np.zeros(len(replayed.crafted), np.bool_)
    missed[longer.rows[~replayed.crafted[longer.rows]][:_MISSED]] = True
    if not missed.any():
        detail = f"it misses none of the {len(longer.rows)} pairs that were looked at"
        return [Check("restarts", about, True, detail), Check("progress", about, True, detail)]
    more = again(replace(attack, restarts=attack.restarts + 1), f"{attack.name} again", missed)
    found = int(more.success.sum())
    rising = 0
    for row, pair in enumerate(more.rows):
        first = more.watched.highest(row, 1)
        once = more.watched.highest(row, attack.steps + 1)
        twice = longer.watched.highest(int(np.flatnonzero(longer.rows == pair)[0]))
        rising += bool(twice - once > _STILL_GAINS * (once - first))
    return [
        Check(
            "restarts",
            about,
            found <= 1,
            f"with one start more and other random numbers, it succeeds on {found} of {len(more.rows)} pairs that it "
            "missed",
        ),
        Check(
            "progress",
            about,
            rising <= 1,
            f"with twice the steps, the margin of {rising} of {len(more.rows)} pairs still rises by more "
            f"than {100 * _STILL_GAINS:g} % of what the first steps gained; all of them were missed",
        ),
    ]


def _converged(about: str, attack: Attack, replayed: Replay, longer: Again) -> Check:
    """Twice the steps must change neither success nor norms by much."""
    before = replayed.crafted[longer.rows]
    both = before & longer.success
    ratio = 1.0
    if attack.traits.epsilon is None and both.any():
        before_norms = replayed.norms(own_norm(attack.traits) or "l2")[longer.rows]
        ratio = float(np.median(longer.norms[both] / before_norms[both]))
    return Check(
        "converged",
        about,
        bool(longer.success.sum() <= before.sum() + 1) and ratio >= _SHRINKS,
        f"with twice the steps, it succeeds on {longer.success.sum()} instead of {before.sum()} of {len(before)} "
        f"pairs, at {ratio:.2f} times the norm",
    )
