"""What an audit would do, and about how long and how large: its plan, with every part of it measured on a few pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from toolkit.attacks.base import Attack, Crafted, Images, Task, Trained
from toolkit.audit.artifacts import encode_probes
from toolkit.audit.bench import Bench
from toolkit.audit.craft import CHUNK, LEARNED_FROM, Chunk, make_task
from toolkit.audit.group import aim
from toolkit.audit.plan import Plan, Unavailable
from toolkit.audit.replay import CleanRun, replay_chunk, run_clean
from toolkit.audit.run import Request, plan_of
from toolkit.audit.sanity import AGAIN
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import PairSet
from toolkit.profiles.profile import Profile

# Pairs that each craft is measured on, and seconds after which an attack is stopped.
SAMPLE = 4
CAP = 5.0
_LEVEL = 0.95
T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """An amount that is not known exactly; without `high` it is at least `low`, and nobody knows how much more."""

    low: float
    expected: float
    high: float | None

    def __add__(self, other: Span) -> Span:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Span(self.low + other.low, self.expected + other.expected, high)

    def times(self, factor: float) -> Span:
        """The amount so many times."""
        high = None if self.high is None else factor * self.high
        return Span(factor * self.low, factor * self.expected, high)


@dataclass(frozen=True)
class Size:
    """How much an audit is about: pairs by kind, and distinct images."""

    genuine: int
    impostor: int
    images: int

    @property
    def pairs(self) -> int:
        """All pairs."""
        return self.genuine + self.impostor


@dataclass(frozen=True)
class CraftEstimate:
    """One set of probes: crafted once, and replayed wherever a scenario says.

    Attributes:
        attack: its name.
        known: the profile that the attacker knows.
        replayed: knowledge and profile of each scenario that replays the probes.
        pairs: that were crafted to measure it.
        stopped: whether the time allowed for that was too short.
        seconds: for all pairs of the audit, crafting and all replays.
        bytes: of its artifacts; None where the attack was stopped.
        problem: why it cannot be run, or None.
    """

    attack: str
    known: str
    replayed: tuple[tuple[str, str], ...]
    pairs: int
    stopped: bool
    seconds: Span
    bytes: Span | None
    problem: str | None = None


@dataclass(frozen=True)
class AuditEstimate:
    """The plan of an audit with what it would take; nothing of its run folder was touched.

    Attributes:
        target, provider: the verifier, and what it really runs on.
        pairs_source, size, seed: what is audited. Pairs without a face will be left out.
        crafts: in the order of the plan.
        unavailable: attacks that cannot be run, and why.
        other_seconds: loading and compiling, the clean pairs, and the sanity checks.
        seconds: in all, with one worker.
        bytes: of all artifacts, which stay.
        temporary_bytes: of crops and embeddings, on disk while the audit runs.
        noisy_images: that certificates take, in none of the times.
    """

    target: str
    provider: str
    pairs_source: str
    size: Size
    seed: int
    crafts: tuple[CraftEstimate, ...]
    unavailable: tuple[Unavailable, ...]
    other_seconds: Span
    seconds: Span
    bytes: Span
    temporary_bytes: int
    noisy_images: int

    @property
    def scenarios(self) -> int:
        """How many scenarios the plan has."""
        return sum(len(craft.replayed) for craft in self.crafts)


def size_of(pairs: PairSet | CropSet) -> Size:
    """Counted; of a pair set before any face is looked for."""
    genuine = sum(pair.genuine for pair in pairs.pairs)
    images = {name for pair in pairs.pairs for name in (pair.probe, pair.reference)}
    return Size(genuine, len(pairs.pairs) - genuine, len(images))


def sample_pairs(pairs: PairSet) -> PairSet:
    """Some pairs of both kinds from all over the list: twice the sample, because some may have no face."""
    genuine = np.array([pair.genuine for pair in pairs.pairs])
    return replace(pairs, pairs=tuple(pairs.pairs[row] for row in _spread_rows(genuine, 2 * SAMPLE)))


def estimate(request: Request, size: Size, cap: float = CAP) -> AuditEstimate:
    """Lay out the plan and measure it: every craft on `SAMPLE` pairs, every replay of them, every profile's setup.

    Times are for one worker on a machine as busy as now. A span's ends are those of the 95 % interval (Student's t) of
    the mean effort of so few pairs, and at its low end batches of a whole chunk gain what they were measured to gain.

    Args:
        request: what is asked; its crops may be those of `sample_pairs`.
        size: of the whole audit.
        cap: seconds after which an attack is stopped; its time is then a lower bound, or goes by its budget.

    Raises:
        SixpixelsError: as by an audit.
    """
    bench, decision = Bench(request.manifest, request.execution, request.seed), request.manifest.decision
    plan = plan_of(request)
    genuine = np.array([pair.genuine for pair in request.crops.pairs])
    rows = _spread_rows(genuine, SAMPLE)
    deployed = list(dict.fromkeys([*request.profiles, *(known for _, known in plan.crafts)]))
    other, clean = Span(0, 0, 0), {}
    for profile in deployed:
        seconds, verifier = _timed(lambda profile=profile: bench.deployed(profile))  # type: ignore[misc]
        per_crop, clean[profile] = _timed(lambda v=verifier: run_clean(v, request.crops, decision))  # type: ignore[misc]
        other += Span(seconds, seconds, seconds)
        other += _around(per_crop / len(request.crops.images) * size.images)

    @cache
    def pace(known: Profile, needs: str) -> _Pace:
        return _measure_pace(bench, known, needs, _task("pace", request, clean[known], rows), cap)

    crafts: list[CraftEstimate] = []
    checks: dict[Profile, Span] = {}
    for attack, known in plan.crafts:
        crafts.append(_measure(request, bench, plan, attack, known, clean, rows, pace(known, attack.needs), size, cap))
        if attack.needs == "gradient":
            checks[known] = checks.get(known, Span(0, 0, 0)) + _checks(attack, crafts[-1], size)
    for known, needs in dict.fromkeys((known, attack.needs) for attack, known in plan.crafts):
        other += _around(pace(known, needs).setup)
    for of_profile in checks.values():
        other += of_profile
    none = Span(0, 0, 0)
    embeddings = 4 * request.manifest.output.size * len(deployed)
    return AuditEstimate(
        target=request.manifest.name,
        provider=bench.deployed(deployed[0]).provider,
        pairs_source=request.pairs_source,
        size=size,
        seed=request.seed,
        crafts=tuple(crafts),
        unavailable=plan.unavailable,
        other_seconds=other,
        seconds=sum((craft.seconds for craft in crafts), other),
        bytes=sum((craft.bytes or Span(0, 0, None) for craft in crafts if not craft.problem), none),
        temporary_bytes=size.images * (request.crops.images[:1].nbytes + embeddings),
        noisy_images=len(request.profiles)
        * (size.genuine + size.impostor)
        * sum(smoothing.draws for smoothing in request.smoothings),
    )


@dataclass(frozen=True)
class _Pace:
    """Of one side of a verifier: seconds to load and compile it, and what a whole chunk gains over the sample."""

    setup: float
    gain: float


class _TimeUpError(Exception):
    """The time that an attack was given is over."""


class _Stopwatch:
    """A model that counts the images that an attack runs, and stops it when its time is up."""

    def __init__(self, model: Any, seconds: float) -> None:
        self._model, self._end, self.images = model, time.perf_counter() + seconds, 0

    def _counted(self, crops: Images) -> Images:
        if time.perf_counter() > self._end:
            raise _TimeUpError
        self.images += len(crops)
        return crops

    def embed(self, crops: Images) -> Any:
        return self._model.embed(self._counted(crops))

    def embed_and_score(self, crops: Images) -> Any:
        return self._model.embed_and_score(self._counted(crops))

    def distances(self, crops: Images, references: NDArray[np.float32]) -> Any:
        return self._model.distances(self._counted(crops), references)

    def distances_and_gradients(self, crops: Images, references: NDArray[np.float32]) -> Any:
        return self._model.distances_and_gradients(self._counted(crops), references)

    def scores_and_gradients(self, crops: Images) -> Any:
        return self._model.scores_and_gradients(self._counted(crops))


def _measure_pace(bench: Bench, known: Profile, needs: str, task: Task, cap: float) -> _Pace:
    def call(times: int) -> None:
        crops = np.tile(task.probes, (times, 1, 1, 1))
        if needs != "gradient":
            bench.attacked(known).embed(crops)
            return
        model = bench.white_box(known)
        model.distances_and_gradients(crops, np.tile(task.references, (times, 1)))
        if np.isfinite(task.alarm):
            model.scores_and_gradients(crops)

    times = max(1, CHUNK // len(task))
    setup, _ = _timed(lambda: call(1))
    few, _ = _timed(lambda: call(1))
    if few * times > cap:
        return _Pace(setup, 1.0)
    many, _ = _timed(lambda: call(times))
    return _Pace(setup, max(1.0, few * times / many))


def _measure(
    request: Request,
    bench: Bench,
    plan: Plan,
    attack: Attack,
    known: Profile,
    clean: dict[Profile, CleanRun],
    rows: NDArray[np.intp],
    pace: _Pace,
    size: Size,
    cap: float,
) -> CraftEstimate:
    """Craft the pairs `rows`, replay them, and scale by the pairs of the audit."""
    scenarios = [s for s in plan.scenarios if (s.attack, s.known) == (attack, known)]
    replayed = tuple((s.knowledge, s.profile.name) for s in scenarios)
    task, clock = _task(attack.name, request, clean[known], rows), _Stopwatch(bench.side(attack, known), cap)
    learning, start, crafted = 0.0, time.perf_counter(), None
    try:
        if isinstance(attack, Trained):
            learning, learned = _timed(lambda: attack.train(clock, task))
            task = replace(task, universal=np.broadcast_to(learned, task.probes.shape))
        crafted = attack.craft(clock, task)
    except _TimeUpError:
        pass
    except InputError as error:
        return CraftEstimate(attack.name, known.name, replayed, len(rows), False, Span(0, 0, 0), None, str(error))
    spent = time.perf_counter() - start - learning
    if crafted is None:
        stopped = _stopped(attack, spent / len(rows), clock.images / len(rows), size.pairs)
        return CraftEstimate(attack.name, known.name, replayed, len(rows), True, stopped, None)
    effort = spent * crafted.evaluations / max(1, crafted.evaluations.sum())
    # Two halves of the people, each with as many photographs as there are, up to a limit.
    seconds = _batched(_scaled(effort, size.pairs), pace.gain)
    seconds += _around(2 * learning / len(rows) * min(LEARNED_FROM, size.images / 2))
    for s in scenarios:
        seconds += _batched(_replay(request, bench, s.profile, clean[s.profile], rows, crafted, size), pace.gain)
    pixels = request.crops.images[request.crops.index[rows, 0]]
    lengths = [len(encode_probes(_one(crafted, i), pixels[i : i + 1])) for i in range(len(rows))]
    stored = _scaled(np.array(lengths, np.float64), size.pairs)
    return CraftEstimate(attack.name, known.name, replayed, len(rows), False, seconds, stored)


def _replay(
    request: Request,
    bench: Bench,
    profile: Profile,
    clean: CleanRun,
    rows: NDArray[np.intp],
    crafted: Crafted,
    size: Size,
) -> Span:
    """As if every pair had been crafted, which is what it takes at most."""
    every = np.ones(len(rows), np.bool_)
    chunk = Chunk(rows, replace(crafted, success=every, success8=every))
    verifier, decision = bench.deployed(profile), request.manifest.decision
    seconds, _ = _timed(lambda: replay_chunk(chunk, verifier, profile, clean, request.crops, decision, request.seed))
    most = seconds / len(rows) * size.pairs
    return Span(0, most, most)


def _stopped(attack: Attack, seconds: float, images: float, pairs: int) -> Span:
    """Of an attack that was stopped after some seconds and images for each pair."""
    budget = getattr(attack, "budget", None)
    if budget is None or not images:
        return Span(seconds * pairs, seconds * pairs, None)
    most = max(seconds, seconds * budget / images) * pairs
    return Span(seconds * pairs, most, most)


def _checks(attack: Attack, craft: CraftEstimate, size: Size) -> Span:
    """The sanity checks run a gradient attack that knows the profile again: with other bounds, and for longer."""
    times = 2 * hasattr(attack, "epsilon") + 2 * hasattr(attack, "steps")
    share = times * min(AGAIN, size.pairs) / size.pairs
    return craft.seconds.times(0 if isinstance(attack, Trained) else share)


def _task(name: str, request: Request, clean: CleanRun, rows: NDArray[np.intp]) -> Task:
    aimed = aim(request.crops, clean.embeddings, request.manifest.decision.metric)
    references = clean.embeddings[aimed.index[rows, 1]]
    return make_task(name, aimed, rows, references, request.manifest.decision, request.seed, clean.alarm)


def _one(crafted: Crafted, row: int) -> Crafted:
    one = slice(row, row + 1)
    c = crafted
    return Crafted(c.probes[one], c.success[one], c.probes8[one], c.success8[one], c.evaluations[one])


def _scaled(values: NDArray[np.float64], pairs: int) -> Span:
    """The sum over all pairs from the values of some: the mean's 95 % interval, but no less than the smallest value."""
    mean = float(values.mean())
    if len(values) >= pairs or len(values) < 2:
        return Span(mean * pairs, mean * pairs, mean * pairs)
    error = float(values.std(ddof=1)) / np.sqrt(len(values)) * float(student.ppf((1 + _LEVEL) / 2, len(values) - 1))
    return Span(pairs * max(float(values.min()), mean - error), pairs * mean, pairs * (mean + error))


def _batched(span: Span, gain: float) -> Span:
    """Measured in small batches; larger ones may gain nothing, or as much as was measured."""
    return Span(span.low / gain, span.expected / np.sqrt(gain), span.high)


def _around(seconds: float) -> Span:
    """A time that was measured once: it may be half or twice as much."""
    return Span(seconds / 2, seconds, 2 * seconds)


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _spread_rows(genuine: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    """At most `count` rows, as many of either kind as there are, from all over the list."""
    kinds: Sequence[NDArray[np.intp]] = sorted((np.flatnonzero(genuine), np.flatnonzero(~genuine)), key=len)
    few = min(len(kinds[0]), count // 2)
    chosen = [
        kind[np.unique(np.linspace(0, len(kind) - 1, n).round().astype(np.intp))]
        for kind, n in zip(kinds, (few, min(len(kinds[1]), count - few)), strict=True)
        if n
    ]
    return np.sort(np.concatenate(chosen))
