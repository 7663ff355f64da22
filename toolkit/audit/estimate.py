"""Estimates of an audit: its plan, with time and disk space extrapolated from a few pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from toolkit.attacks.base import Attack, Crafted, Task, is_trained
from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.group import aim
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.crafting.artifacts import encode_probes
from toolkit.audit.crafting.craft import CHUNK, LEARNED_FROM, Chunk, make_task
from toolkit.audit.embedding import embedding_width
from toolkit.audit.options import AuditOptions
from toolkit.audit.plan import Plan, Unavailable
from toolkit.audit.replaying.replay import replay_chunk
from toolkit.audit.replaying.reruns import pairs_again
from toolkit.audit.request import SAMPLE, Request, make_request, plan_of
from toolkit.audit.suites import NATURAL
from toolkit.errors import InputError
from toolkit.faces.corruptions import CORRUPTIONS, STRENGTHS
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import PairSet
from toolkit.faces.sampling import spread_rows
from toolkit.pixels import Images
from toolkit.profiles.profile import Profile
from toolkit.progress import SILENT, Progress

# An estimate stops an attack after this many seconds.
CAP = 5.0
_LEVEL = 0.95
T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """An estimated amount with its interval. Without `high`, the amount is at least `low` and has no upper bound."""

    low: float
    expected: float
    high: float | None

    def __add__(self, other: Span) -> Span:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Span(self.low + other.low, self.expected + other.expected, high)

    def times(self, factor: float) -> Span:
        """Multiply the amount by `factor`."""
        high = None if self.high is None else factor * self.high
        return Span(factor * self.low, factor * self.expected, high)


@dataclass(frozen=True)
class Size:
    """The size of an audit: genuine pairs, impostor pairs, distinct images."""

    genuine: int
    impostor: int
    images: int

    @property
    def pairs(self) -> int:
        """The number of all pairs."""
        return self.genuine + self.impostor


@dataclass(frozen=True)
class CraftEstimate:
    """The cost of one set of probes, which is crafted once and replayed in every scenario that uses it.

    Attributes:
        attack: name of the attack.
        known: name of the profile that the attacker knows.
        replayed: knowledge and profile of each scenario that replays the probes.
        pairs: number of pairs that were measured.
        stopped: whether the attack was stopped because it took too long.
        seconds: time to craft and replay all pairs of the audit.
        bytes: size of the artifacts; None if the attack was stopped.
        problem: why the attack cannot run, or None.
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
    """The plan of an audit, and the time and disk space that it needs.

    Attributes:
        target, provider: the verifier, and the provider that it runs on.
        pairs_source, size, seed: the pairs and the seed. The audit will leave out pairs without a face.
        crafts: the sets of probes, in the order of the plan.
        unavailable: attacks that cannot run, and why.
        other_seconds: time to load and compile models, verify the clean pairs and run the sanity checks.
        seconds: total time of one worker with one thread.
        bytes: size of all artifacts. They remain after the audit.
        temporary_bytes: size of crops and embeddings, which are on disk while the audit runs.
        noisy_images: number of images that the certificates need. The times do not include them.
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
    """Count pairs and images, including those in which no face will be found."""
    genuine = sum(pair.genuine for pair in pairs.pairs)
    images = {name for pair in pairs.pairs for name in (pair.probe, pair.reference)}
    return Size(genuine, len(pairs.pairs) - genuine, len(images))


def estimate(request: Request, size: Size, cap: float = CAP) -> AuditEstimate:
    """Plan an audit, and measure each part on at most `SAMPLE` pairs: setup, crafting and replays.

    Times hold for one worker with one thread, on a machine as busy as it is now. Intervals are 95 % intervals
    (Student's t) of the mean time per pair. Their low ends assume that full batches are as much faster as in a test.

    Args:
        request: the inputs of the audit; its crops may be those of `sample_pairs`.
        size: size of the whole audit.
        cap: seconds after which an attack is stopped. Its time is then a lower bound, or follows from its budget.

    Raises:
        SixpixelsError: see `run_audit`.
    """
    bench, decision = Bench(request.manifest, request.execution, request.seed), request.manifest.decision
    plan = plan_of(request)
    genuine = np.array([pair.genuine for pair in request.crops.pairs])
    rows = spread_rows(genuine, SAMPLE)
    deployed = list(dict.fromkeys([*request.profiles, *(known for _, known in plan.crafts)]))
    other, clean = Span(0, 0, 0), {}
    for profile in deployed:
        seconds, verifier = _timed(lambda profile=profile: bench.deployed(profile))  # type: ignore[misc]
        per_crop, clean[profile] = _timed(lambda v=verifier: run_clean(v, request.crops, decision))  # type: ignore[misc]
        other += Span(seconds, seconds, seconds)
        images = size.images + _corrupted(request, profile, size)
        other += _around(per_crop / len(request.crops.images) * images)

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
    embeddings = 4 * sum(1 + embedding_width(request.manifest, profile) for profile in deployed)
    kept = Span(0.8 * size.images * embeddings, size.images * embeddings, size.images * embeddings)
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
        bytes=sum((craft.bytes or Span(0, 0, None) for craft in crafts if not craft.problem), kept),
        temporary_bytes=size.images * (request.crops.images[:1].nbytes + embeddings),
        noisy_images=len(request.profiles)
        * (size.genuine + size.impostor)
        * sum(smoothing.draws for smoothing in request.smoothings),
    )


def _corrupted(request: Request, profile: Profile, size: Size) -> int:
    """The number of corrupted images that the suite shows to a profile."""
    asked = request.suite == NATURAL and profile in request.profiles
    return len(CORRUPTIONS) * STRENGTHS * size.pairs if asked else 0


@dataclass(frozen=True)
class _Pace:
    """The speed of a verifier: seconds to load and compile it, and the speedup of a full batch over the sample."""

    setup: float
    gain: float


class _TimeUpError(Exception):
    """An attack has used up its time."""


class _Stopwatch:
    """Wraps a model: counts the images that an attack runs, and stops the attack when its time is up."""

    def __init__(self, model: Any, seconds: float) -> None:
        self._model, self._end, self.images = model, time.perf_counter() + seconds, 0
        self.compare = model.compare

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
    """Craft and replay the pairs `rows`, and scale the cost to all pairs of the audit."""
    scenarios = [s for s in plan.scenarios if (s.attack, s.known) == (attack, known)]
    replayed = tuple((s.knowledge, s.profile.name) for s in scenarios)
    task, clock = _task(attack.name, request, clean[known], rows), _Stopwatch(bench.side(attack, known), cap)
    learning, start, crafted = 0.0, time.perf_counter(), None
    try:
        if is_trained(attack):
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
    # A trained attack learns twice, on the photos of one half of the people each, up to a limit.
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
    """Time to replay all pairs. It is an upper bound, because an audit replays only successful probes."""
    every = np.ones(len(rows), np.bool_)
    chunk = Chunk(rows, replace(crafted, success=every, success8=every))
    verifier, decision = bench.deployed(profile), request.manifest.decision
    seconds, _ = _timed(lambda: replay_chunk(chunk, verifier, profile, clean, request.crops, decision, request.seed))
    most = seconds / len(rows) * size.pairs
    return Span(0, most, most)


def _stopped(attack: Attack, seconds: float, images: float, pairs: int) -> Span:
    """Time of an attack that was stopped after `seconds` and `images` per pair."""
    budget = attack.traits.budget
    if budget is None or not images:
        return Span(seconds * pairs, seconds * pairs, None)
    most = max(seconds, seconds * budget / images) * pairs
    return Span(seconds * pairs, most, most)


def _checks(attack: Attack, craft: CraftEstimate, size: Size) -> Span:
    """Time of the sanity checks, which run a gradient attack again with other bounds, more steps and more starts."""
    bounded = attack.traits.epsilon is not None
    # One attack of a profile runs on half of these pairs with one start more; this counts it for each.
    times = 2 * bounded + 2 * bool(attack.traits.steps) + (bounded and hasattr(attack, "restarts"))
    times = 0 if attack.traits.far else times
    share = times * min(pairs_again(size.pairs), size.pairs) / size.pairs
    return craft.seconds.times(0 if is_trained(attack) else share)


def _task(name: str, request: Request, clean: CleanRun, rows: NDArray[np.intp]) -> Task:
    aimed = aim(request.crops, clean.embeddings, request.manifest.decision.metric)
    references = clean.embeddings[aimed.index[rows, 1]]
    return make_task(name, aimed, rows, references, request.manifest.decision, request.seed, clean.alarm)


def _one(crafted: Crafted, row: int) -> Crafted:
    one = slice(row, row + 1)
    c = crafted
    return Crafted(c.probes[one], c.success[one], c.probes8[one], c.success8[one], c.evaluations[one])


def _scaled(values: NDArray[np.float64], pairs: int) -> Span:
    """Extrapolate values of some pairs to a sum over `pairs`, with the 95 % interval of the mean.

    The low end uses at least the smallest value.
    """
    mean = float(values.mean())
    if len(values) >= pairs or len(values) < 2:
        return Span(mean * pairs, mean * pairs, mean * pairs)
    error = float(values.std(ddof=1)) / np.sqrt(len(values)) * float(student.ppf((1 + _LEVEL) / 2, len(values) - 1))
    return Span(pairs * max(float(values.min()), mean - error), pairs * mean, pairs * (mean + error))


def _batched(span: Span, gain: float) -> Span:
    """Allow for larger batches than the measured ones: they may be up to `gain` times as fast."""
    return Span(span.low / gain, span.expected / np.sqrt(gain), span.high)


def _around(seconds: float) -> Span:
    """The interval of a time that was measured once: from half to twice the time."""
    return Span(seconds / 2, seconds, 2 * seconds)


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def plan_audit(options: AuditOptions, progress: Progress = SILENT) -> AuditEstimate:
    """Plan an audit and estimate its cost on a few pairs, without writing anything.

    Args:
        options: the options of the audit.
        progress: shows the alignment of the faces.

    Raises:
        SixpixelsError: see `audit_verifier`.
    """
    request, pairs = make_request(options, progress, sample=True)
    return estimate(request, size_of(pairs if options.group is None else request.crops))
