"""Jobs: chunks of probes to craft, each complete in itself, and the order in which finished ones come back.

A job carries its pixels and embeddings, so that whoever carries it out needs only the files of model and profile.
Its result is the content of an artifact. What is in a chunk is fixed by the pairs alone: results do not depend on how
many workers there are, or on which of them does what.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import numpy as np
from numpy.typing import NDArray

import toolkit.attacks
from toolkit.attacks.base import Attack, Crafted, Images, Task, Trained, to_8bit, to_unit
from toolkit.audit.artifacts import decode_probes, encode_probes, read_artifact
from toolkit.audit.bench import Bench
from toolkit.audit.craft import Series, attack_parameters, learn, make_task, pair_generator, people_halves
from toolkit.audit.replay import CleanRun
from toolkit.errors import InputError, UnavailableError
from toolkit.files import check_sha256, write_bytes
from toolkit.profiles.profile import Profile, read_profile
from toolkit.registry import choose, discover
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution

Ticket = Callable[[], bytes]


@dataclass(frozen=True)
class Job:
    """A chunk to craft: the attack, the profile that the attacker knows, and a task of the pairs `ids`."""

    attack: Attack
    known: Profile
    ids: tuple[str, ...]
    task: Task


class Pool(Protocol):
    """Whoever carries out jobs."""

    @property
    def width(self) -> int:
        """How many jobs are given out before the result of the first is asked for."""
        ...

    def submit(self, job: Job) -> Ticket:
        """Take a job. The result waits for the artifact's content; it raises InputError where the attack cannot be run.

        Raises:
            SixpixelsError: there is nobody left to carry it out.
        """
        ...


@dataclass(frozen=True)
class Step:
    """A chunk of a series: where its probes are, and the job that makes them where they are not there.

    `job` gives an error instead where the attack cannot even be prepared.
    """

    series: Series
    rows: NDArray[np.intp]
    path: Path
    job: Callable[[], Job | InputError]


def finish(steps: Iterable[Step], pool: Pool) -> Iterator[tuple[Step, Crafted | InputError]]:
    """Carry out all steps; the probes, or why there are none, in the order of the steps.

    Artifacts that are there and whole are read, others made and written.

    Raises:
        SixpixelsError: an artifact cannot be written, or no worker is left.
    """
    ahead: deque[tuple[Step, Crafted | InputError | Ticket]] = deque()
    for step in steps:
        ahead.append((step, _begin(step, pool)))
        while len(ahead) > pool.width:
            yield _settle(*ahead.popleft())
    while ahead:
        yield _settle(*ahead.popleft())


def _begin(step: Step, pool: Pool) -> Crafted | InputError | Ticket:
    crafted = decode_probes(read_artifact(step.path), step.series.clean(step.rows))
    if crafted is not None:
        return crafted
    job = step.job()
    return job if isinstance(job, InputError) else pool.submit(job)


def _settle(step: Step, begun: Crafted | InputError | Ticket) -> tuple[Step, Crafted | InputError]:
    if isinstance(begun, Crafted | InputError):
        return step, begun
    try:
        content = begun()
    except InputError as error:
        return step, error
    # What comes fresh from a worker is read as it will be read again, so that an interrupt changes nothing.
    crafted = decode_probes(content, step.series.clean(step.rows))
    if crafted is None:
        raise UnavailableError(f"{step.series.name}: a worker's result was damaged on its way; give the command again")
    write_bytes(step.path, content)
    return step, crafted


def series_steps(series: Series, bench: Bench, clean: CleanRun) -> Iterator[Step]:
    """The steps of a series, against references that `clean` has embedded; what is learned is learned here, once."""
    learned: list[Images | InputError] = []
    halves = people_halves(series.crops)

    def job(rows: NDArray[np.intp]) -> Job | InputError:
        attack, known, crops = series.attack, series.known, series.crops
        references = clean.embeddings[crops.index[rows, 1]]
        task = make_task(attack.name, crops, rows, references, series.decision, series.seed, clean.alarm)
        if isinstance(attack, Trained):
            if not learned:
                learned.append(learn(series, bench.side(attack, known), clean.alarm))
            if isinstance(learned[0], InputError):
                return learned[0]
            task = replace(task, universal=learned[0][halves[rows]])
        return Job(attack, known, tuple(crops.pairs[row].id for row in rows), task)

    for rows, path in series.chunks():
        yield Step(series, rows, path, partial(job, rows))


def run_job(job: Job, bench: Bench) -> bytes:
    """Craft a chunk; the content of its artifact.

    Raises:
        InputError: the attack cannot be run on this model.
    """
    crafted = job.attack.craft(bench.side(job.attack, job.known), job.task)  # type: ignore[arg-type]
    return encode_probes(crafted, to_8bit(job.task.probes))


class InProcess:
    """Jobs done where they are given, one by one, when their results are asked for."""

    width = 0

    def __init__(self, bench: Bench) -> None:
        """`bench` is what they run on."""
        self._bench = bench

    def submit(self, job: Job) -> Ticket:
        """See `Pool`."""
        return lambda: run_job(job, self._bench)


def pack_job(job: Job, bench: Bench) -> bytes:
    """A job as bytes, for another process: a line of JSON, then the arrays that it names.

    Raises:
        UnavailableError: the profile or the model is not in a file, where a worker could read it.
    """
    task, manifest = job.task, bench.manifest
    if not (job.known.source or job.known.empty):
        raise UnavailableError(
            f"profile {job.known.name} is in no file, so that workers cannot read it; use --workers 1"
        )
    arrays = {
        "probes": to_8bit(task.probes),
        "references": task.references,
        "dodging": task.dodging,
        "start": None if task.start is None else to_8bit(task.start),
        "landmarks": task.landmarks,
        "universal": task.universal,
    }
    given = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    header = {
        "attack": [job.attack.name, attack_parameters(job.attack)],
        "known": [job.known.source, job.known.sha256],
        "model": [str(manifest.path.resolve()), str(manifest.model.resolve()), bench.model_sha256],
        "execution": [getattr(bench.execution, field.name) for field in fields(Execution)],
        "seed": bench.seed,
        "ids": job.ids,
        "alarm": None if math.isinf(task.alarm) else task.alarm,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in given.items()],
    }
    return json.dumps(header).encode() + b"\n" + b"".join(array.tobytes() for array in given.values())


class Workbench:
    """Where a worker carries out packed jobs; benches are kept from job to job."""

    def __init__(self) -> None:
        """Without a bench yet."""
        self._benches: dict[str, Bench] = {}

    def run(self, packed: bytes) -> bytes:
        """What `run_job` gives for what `pack_job` packed.

        Raises:
            InputError: model or profile are not here or other than they were, or the attack cannot be run on them.
        """
        line, _, content = packed.partition(b"\n")
        header = json.loads(line)
        bench = self._bench(header)
        attack = attack_with(*header["attack"])
        ids = tuple(header["ids"])
        arrays = _arrays(header["arrays"], content)
        start = arrays.get("start")
        task = Task(
            to_unit(arrays["probes"]),
            arrays["references"],
            arrays["dodging"],
            bench.manifest.decision,
            tuple(pair_generator(bench.seed, attack.name, one) for one in ids),
            None if start is None else to_unit(start),
            np.inf if header["alarm"] is None else header["alarm"],
            arrays.get("landmarks"),
            arrays.get("universal"),
        )
        return run_job(Job(attack, _profile(*header["known"]), ids, task), bench)

    def _bench(self, header: dict[str, Any]) -> Bench:
        key = json.dumps([header["model"], header["execution"], header["seed"]])
        if key not in self._benches:
            described, model, digest = header["model"]
            manifest = replace(read_manifest(Path(described)), model=Path(model))
            bench = Bench(manifest, Execution(*header["execution"]), header["seed"])
            if bench.model_sha256 != digest:
                raise InputError(f"{manifest.model}: is another file for this worker than for the audit")
            self._benches[key] = bench
        return self._benches[key]


def _file(path: str, digest: str) -> Path:
    check_sha256(Path(path), digest)
    return Path(path)


def attack_with(name: str, parameters: dict[str, Any]) -> Attack:
    """The registered attack of that name with parameters that were read from JSON.

    Raises:
        UsageError: there is no such attack.
        ValueError: it has other parameters.
    """
    attack = choose("attack", [name], discover(toolkit.attacks, "ATTACK"))[0]
    known = {field.name for field in fields(attack)}
    if set(parameters) != known:
        raise ValueError(f"{name} has the parameters {sorted(known)}, not {sorted(parameters)}")
    kinds = get_type_hints(type(attack))
    values = {
        key: _file(*value)
        if value and kinds[key] == Path | None
        else tuple(value)
        if isinstance(value, list)
        else value
        for key, value in parameters.items()
    }
    return replace(attack, **{key: values[key] for key in known if getattr(attack, key) != values[key]})


def _profile(source: str, digest: str) -> Profile:
    if not source:
        return Profile("none", "", (), "")
    profile = read_profile(Path(source))
    if profile.sha256 != digest:
        raise InputError(f"{source}: is another profile for this worker than for the audit")
    return profile


def _arrays(named: Sequence[tuple[str, str, list[int]]], content: bytes) -> dict[str, NDArray[Any]]:
    arrays, at = {}, 0
    for name, kind, shape in named:
        count = math.prod(shape)
        arrays[name] = np.frombuffer(content, kind, count, at).reshape(shape)
        at += arrays[name].nbytes
    return arrays
