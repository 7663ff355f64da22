"""Sanity checks that run the gradient attacks of an audit again on a few of its pairs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, is_trained
from toolkit.attacks.ddn import Ddn
from toolkit.attacks.norms import sizes
from toolkit.attacks.pgd import Pgd
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.crafting.artifacts import decode_found, encode_found, hash_of
from toolkit.audit.crafting.blind import with_blind_tries
from toolkit.audit.crafting.code import attack_code, profile_code
from toolkit.audit.crafting.craft import attack_parameters
from toolkit.audit.crafting.jobs import Parcel
from toolkit.audit.crafting.series import CraftJob, craft_job
from toolkit.audit.plan import Scenario
from toolkit.audit.replaying.replay import Replay, own_norm
from toolkit.audit.replaying.sanity import AGAIN, Check, Outcome, Subject, sample_task
from toolkit.audit.replaying.watch import Watched
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, to_unit
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Decision

# The fewest pairs that an attack runs on again, if a run has as many.
_FEWEST_AGAIN = 4
# Pairs that an attack missed, which one start more is tried on; share of its gain that twice the steps may add.
_MISSED, _STILL_GAINS = 4, 0.1
# An attack has converged if twice the steps do not shrink its median norm below this factor.
_SHRINKS = 0.9
_UNBOUNDED = Pgd(epsilon=1.0, steps=100, step=4 / 255)
# The steps of PGD are so long that a detector notices each. Those of DDN are not, and its ball grows without a bound.
_UNNOTICED = Ddn()


@dataclass(frozen=True)
class Margins:
    """What an attack did with m pairs: success with 8 bits, sizes in its norm, and the margins that it reached."""

    success: tuple[bool, ...]
    norms: tuple[float, ...]
    margins: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Rerun:
    """An attack to run again on the pairs `rows` of the run.

    If it has the random numbers of another attack, `drawn`, it explores other starts.
    """

    job: CraftJob
    drawn: str
    rows: NDArray[np.intp]

    @property
    def name(self) -> str:
        """See `Job`."""
        return f"{self.job.name}, again"

    def run(self, bench: Verifiers) -> bytes:
        """Run the attack; see `Job`.

        Raises:
            InputError: it cannot run on this model.
        """
        attack, task = self.job.attack, self.job.task
        model = bench.side(attack, self.job.known)
        watched = Watched(model, task)
        crafted = with_blind_tries(attack.craft(watched, task), attack, model, task, self.job.ids, bench.seed)
        norms = sizes(own_norm(attack.traits) or "l2", to_unit(crafted.probes8) - task.probes)
        found = Margins(tuple(crafted.success8.tolist()), tuple(norms.tolist()), watched.margins)
        return encode_found(found)

    def decode(self, content: bytes) -> Again | None:
        """The results in its artifact; None if it is damaged."""
        found = decode_found(content, Margins)
        return (
            None if found is None else Again(self.rows, np.array(found.success), np.array(found.norms), found.margins)
        )

    def parcel(self) -> Parcel:
        """See `Job`."""
        inner = self.job.parcel()
        return Parcel("rerun", {**inner.header, "drawn": self.drawn}, inner.arrays)

    def content(self) -> dict[str, object]:
        """Name all that its result depends on, besides the model."""
        attack, task = self.job.attack, self.job.task
        arrays = {"probes": task.probes, "references": task.references, "dodging": task.dodging}
        return {
            "rerun": [attack.name, attack_parameters(attack), attack_code(attack), self.drawn],
            "known": [self.job.known.sha256, profile_code(self.job.known)],
            "decision": [asdict(task.decision), str(task.alarm)],
            "pairs": self.job.ids,
            "arrays": hash_of({**arrays, "start": task.start, "landmarks": task.landmarks}),
        }


def rerun_job(parcel: Parcel, seed: int) -> Rerun:
    """Read the job in a parcel. Its `rows` are empty, because the model need not know them.

    Raises:
        InputError: the attack or the profile differs from that of the audit.
    """
    drawn = parcel.header["drawn"]
    return Rerun(craft_job(parcel, seed, drawn), drawn, np.empty(0, np.intp))


@dataclass(frozen=True)
class Again:
    """The results of running an attack again on the pairs `rows`, with the sizes of its perturbations in its norm.

    `margins` has those that it reached with each pair, in the order of its gradients.
    """

    rows: NDArray[np.intp]
    success: Bools
    norms: NDArray[np.float64]
    margins: tuple[tuple[float, ...], ...]

    def highest(self, place: int, gradients: int | None = None) -> float:
        """The highest margin of a pair within its first `gradients`, or within all; minus infinity without any."""
        return max(self.margins[place][:gradients], default=-np.inf)


# A check asks for reruns, is sent their results, and returns what it found.
Asking = Generator[Sequence[Rerun], list[Again], list[Check]]


def attack_checks(
    subject: Subject,
    outcomes: Sequence[Outcome],
    crops: CropSet,
    decision: Decision,
    seed: int,
    most: int = AGAIN,
) -> list[Asking]:
    """The checks that run gradient attacks that know the profile again on a few pairs. They may run at once.

    The attacks run without a bound, with other bounds, with more steps, and the most successful one with one start
    more. An attack that spends its whole ball takes all of its steps and looks for no success: more steps or another
    ball say nothing of it. Attacks that must be trained are skipped, because a few pairs are not enough to train them.

    Args:
        subject: the profile.
        outcomes: the results of all scenarios.
        crops: the pairs.
        decision: metric and threshold.
        seed: seed of the audit.
        most: the largest number of pairs; see `pairs_again`.

    Returns:
        Generators: each yields the attacks that it wants to run, is sent their results, and returns its checks.
    """
    mine = [(s.attack, r) for s, r in outcomes if _looked_at(s, subject.profile)]
    if not mine:
        return []

    again = partial(_again, subject, crops, decision, seed, most)
    strongest = _strongest(subject, mine)
    checks = [_unbounded(subject, mine, again)]
    for attack, replayed in mine:
        if attack.traits.far:
            continue
        about = f"{attack.name} on {subject.profile.name}"
        if attack.traits.epsilon is not None:
            checks.append(_budget(about, attack, replayed, again))
        if attack.traits.steps:
            checks.append(_longer(about, attack, replayed, again, restarted=attack == strongest))
    return checks


def early_reruns(
    subject: Subject,
    scenarios: Sequence[Scenario],
    crops: CropSet,
    decision: Decision,
    seed: int,
    most: int = AGAIN,
) -> Iterator[Rerun]:
    """Those of the reruns of `attack_checks` that depend on no outcome, so that they need not wait for any."""
    again = partial(_again, subject, crops, decision, seed, most)
    for attack in [s.attack for s in scenarios if _looked_at(s, subject.profile) and not s.attack.traits.far]:
        if attack.traits.steps:
            yield _doubled(attack, again)
        if attack.traits.epsilon is not None:
            yield from _in_other_balls(attack, again)


def _looked_at(scenario: Scenario, profile: Profile) -> bool:
    """Whether a gradient attack knows the profile. Those that must be trained are left out: a few pairs are too few."""
    attack = scenario.attack
    return scenario.profile == scenario.known == profile and attack.needs == "gradient" and not is_trained(attack)


def _in_other_balls(attack: Any, again: Callable[..., Rerun]) -> list[Rerun]:
    return [again(_once(attack, epsilon=by * attack.epsilon), attack.name) for by in (0.5, 2.0)]


def _doubled(attack: Attack, again: Callable[..., Rerun]) -> Rerun:
    return again(_once(attack, steps=2 * attack.traits.steps), attack.name)


def _strongest(subject: Subject, mine: Sequence[tuple[Attack, Replay]]) -> Attack | None:
    """The most successful attack that has starts in a ball."""
    # For a random profile, other starts meet other draws, so that chance alone solves pairs that were missed.
    started = [(a, r) for a, r in mine if hasattr(a, "restarts") and a.traits.epsilon is not None]
    if subject.profile.random or not started:
        return None
    return max(started, key=lambda one: int((one[1].crafted & subject.clean.eligible).sum()))[0]


def _again(
    subject: Subject,
    crops: CropSet,
    decision: Decision,
    seed: int,
    most: int,
    attack: Attack,
    drawn: str,
    among: Bools | None = None,
) -> Rerun:
    """Prepare to run `attack` on a few pairs, with the random numbers of the attack `drawn`."""
    task, rows = sample_task(subject, crops, decision, seed, drawn, most, among)
    return Rerun(CraftJob(attack, subject.profile, tuple(crops.pairs[row].id for row in rows), task), drawn, rows)


def pairs_again(pairs: int) -> int:
    """On how many of a run's pairs an attack runs again: a quarter, from 4 to 8."""
    return min(AGAIN, max(_FEWEST_AGAIN, pairs // 4))


def _once(attack: Any, **changes: object) -> Any:
    """The attack with other parameters and one start: more starts would cost as much again for each."""
    return replace(attack, **changes, **({"restarts": 1} if hasattr(attack, "restarts") else {}))


def _unbounded(subject: Subject, mine: Sequence[tuple[Attack, Replay]], again: Callable[..., Rerun]) -> Asking:
    """An unbounded attack may use any image, so that it must succeed on every pair."""
    unsolved = subject.clean.eligible & ~np.any([r.crafted for _, r in mine], axis=0)
    about, left = subject.profile.name, int(unsolved.sum())
    if not left:
        return [Check("unbounded", about, True, "gradient attacks succeed on every eligible pair")]
    attack: Attack = _UNBOUNDED if np.isinf(subject.clean.alarm) else _UNNOTICED
    (result,) = yield [again(attack, attack.name, unsolved)]
    found = int(result.success.sum())
    detail = (
        f"on {left} pairs no gradient attack succeeds; without a bound, one succeeds on {found} of {len(result.rows)} "
        "of them"
    )
    return [Check("unbounded", about, found == len(result.rows), detail)]


def _budget(about: str, attack: Any, replayed: Replay, again: Callable[..., Rerun]) -> Asking:
    """A larger bound must not lower success, except for one pair by chance."""
    half, double = yield _in_other_balls(attack, again)
    counts = [int(half.success.sum()), int(replayed.crafted[half.rows].sum()), int(double.success.sum())]
    detail = (
        f"with half, once and twice the bound, it succeeds on {counts[0]}, {counts[1]} and {counts[2]} of "
        f"{len(half.rows)} pairs"
    )
    return [Check("budget", about, counts[0] <= counts[1] + 1 and counts[1] <= counts[2] + 1, detail)]


def _longer(about: str, attack: Any, replayed: Replay, again: Callable[..., Rerun], *, restarted: bool) -> Asking:
    """Run the attack with twice the steps; if `restarted`, also with one start more."""
    (longer,) = yield [_doubled(attack, again)]
    checks = [_converged(about, attack, replayed, longer)]
    if restarted:
        checks += yield from _restarted(about, attack, replayed, longer, again)
    return checks


def _restarted(about: str, attack: Any, replayed: Replay, longer: Again, again: Callable[..., Rerun]) -> Asking:
    """One start more must solve few missed pairs, and twice the steps must hardly raise the margins of the others."""
    missed = np.zeros(len(replayed.crafted), np.bool_)
    missed[longer.rows[~replayed.crafted[longer.rows]][:_MISSED]] = True
    if not missed.any():
        detail = f"it misses none of the {len(longer.rows)} pairs that were looked at"
        return [Check("restarts", about, True, detail), Check("progress", about, True, detail)]
    (more,) = yield [again(replace(attack, restarts=attack.restarts + 1), f"{attack.name} again", missed)]
    found = int(more.success.sum())
    rising = 0
    for row, pair in enumerate(more.rows):
        first = more.highest(row, 1)
        once = more.highest(row, attack.steps + 1)
        twice = longer.highest(int(np.flatnonzero(longer.rows == pair)[0]))
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
