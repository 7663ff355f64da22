"""Jobs: self-contained chunks of probes to craft, whose results come back in a fixed order.

A job contains its pixels and embeddings, so that a worker needs only the files of the model and the profile. The result
is the content of an artifact. The pairs alone determine the chunks, so that results do not depend on the number of
workers or on the distribution of jobs among them.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Task, is_trained
from toolkit.audit.clean.bench import Bench, Verifiers
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.artifacts import decode_probes, encode_probes, read_artifact
from toolkit.audit.crafting.code import attack_code, defense_code
from toolkit.audit.crafting.craft import Series, attack_parameters, learn, make_task, pair_generator, people_halves
from toolkit.documents import from_plain
from toolkit.errors import InputError, UnavailableError
from toolkit.files import check_sha256, write_bytes
from toolkit.pixels import Images, to_8bit, to_unit
from toolkit.profiles.profile import Profile, read_profile
from toolkit.registry import choose, discover
from toolkit.verifiers.manifest import Decision, read_manifest
from toolkit.verifiers.onnx_file import model_sha256
from toolkit.verifiers.runtime import Execution

Ticket = Callable[[], bytes]


@dataclass(frozen=True)
class Job:
    """A chunk to craft: the attack, the profile that the attacker knows, the ids of the pairs, and their task."""

    attack: Attack
    known: Profile
    ids: tuple[str, ...]
    task: Task


class Pool(Protocol):
    """Runs jobs."""

    @property
    def width(self) -> int:
        """How many jobs to submit before waiting for the result of the first one."""
        ...

    def submit(self, job: Job) -> Ticket:
        """Start a job.

        Returns:
            A function that waits for the job and returns the artifact's content. It raises InputError if the attack
            cannot run, and UnavailableError if the workers fail.

        Raises:
            SixpixelsError: the job cannot be given to a worker.
        """
        ...


@dataclass(frozen=True)
class Step:
    """A chunk of a series: the file of its probes, and the job that crafts them if the file is missing.

    `job` returns an InputError if the attack cannot be prepared.
    """

    series: Series
    rows: NDArray[np.intp]
    path: Path
    job: Callable[[], Job | InputError]


def finish(steps: Iterable[Step], pool: Pool) -> Iterator[tuple[Step, Crafted | InputError]]:
    """Finish all steps: read the artifacts that exist and are undamaged, and craft and write the others.

    Yields:
        Each step, in order, with its probes, or with an InputError if the attack cannot run.

    Raises:
        SixpixelsError: an artifact cannot be written, or the workers fail.
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
    # Use the decoded artifact, not the original probes, so that a continued audit finds the same results.
    crafted = decode_probes(content, step.series.clean(step.rows))
    if crafted is None:
        raise UnavailableError(f"{step.series.name}: a worker sent damaged data; give the command again")
    write_bytes(step.path, content)
    return step, crafted


def series_steps(series: Series, bench: Verifiers, clean: CleanRun) -> Iterator[Step]:
    """The steps of a series. A trained attack is trained here once, before its first job.

    Args:
        series: the series.
        bench: the verifiers.
        clean: the clean run of the known profile, for the embeddings of the references.
    """
    learned: list[Images | InputError] = []
    halves = people_halves(series.crops)

    def job(rows: NDArray[np.intp]) -> Job | InputError:
        attack, known, crops = series.attack, series.known, series.crops
        references = clean.embeddings[crops.index[rows, 1]]
        task = make_task(attack.name, crops, rows, references, series.decision, series.seed, clean.alarm)
        if is_trained(attack):
            if not learned:
                learned.append(learn(series, bench.side(attack, known), clean.alarm))
            if isinstance(learned[0], InputError):
                return learned[0]
            task = replace(task, universal=learned[0][halves[rows]])
        return Job(attack, known, tuple(crops.pairs[row].id for row in rows), task)

    for rows, path in series.chunks():
        yield Step(series, rows, path, partial(job, rows))


def run_job(job: Job, bench: Verifiers) -> bytes:
    """Craft a chunk, and encode it as an artifact.

    Raises:
        InputError: the attack cannot run on this model, or its probes have values that are not finite.
    """
    crafted = job.attack.craft(bench.side(job.attack, job.known), job.task)
    if not np.isfinite(crafted.probes).all():
        raise InputError(f"{job.attack.name}: crafted probes with NaN or infinite values; repair the attack")
    return encode_probes(crafted, to_8bit(job.task.probes))


class InProcess:
    """A pool without workers: runs each job in this process when its result is requested."""

    width = 0

    def __init__(self, bench: Bench) -> None:
        """Use the verifiers of `bench`."""
        self._bench = bench

    def submit(self, job: Job) -> Ticket:
        """See `Pool`."""
        return lambda: run_job(job, self._bench)


def pack_job(job: Job, bench: Bench) -> bytes:
    """Encode a job for another process: a line of JSON, then the arrays that it names.

    Raises:
        UnavailableError: the profile is not in a file, so that a worker cannot read it.
    """
    task, manifest = job.task, bench.manifest
    if not (job.known.source or job.known.empty):
        raise UnavailableError(f"profile {job.known.name} is not in a file, so workers cannot read it; use --workers 1")
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
        "code": attack_code(job.attack),
        "known": [job.known.source, job.known.sha256, _code(job.known)],
        "model": [str(manifest.path.resolve()), str(manifest.model.resolve()), bench.model_sha256, manifest.reading],
        "decision": asdict(task.decision),
        "execution": [getattr(bench.execution, field.name) for field in fields(Execution)],
        "seed": bench.seed,
        "ids": job.ids,
        "alarm": None if math.isinf(task.alarm) else task.alarm,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in given.items()],
    }
    return json.dumps(header).encode() + b"\n" + b"".join(array.tobytes() for array in given.values())


class Workbench:
    """Runs packed jobs in a worker, and keeps each bench for the next job."""

    def __init__(self) -> None:
        """Start without a bench."""
        self._benches: dict[str, Bench] = {}

    def run(self, packed: bytes) -> bytes:
        """Run a job from `pack_job`; see `run_job`.

        Raises:
            InputError: the model or a profile is missing or has changed, or the attack cannot run on them.
        """
        line, _, content = packed.partition(b"\n")
        header = json.loads(line)
        bench = self._bench(header)
        attack = attack_with(*header["attack"])
        if attack_code(attack) != header["code"]:
            raise InputError(
                f"{attack.name}: this worker and the audit have different code of this attack; install the same version"
            )
        ids = tuple(header["ids"])
        arrays = _arrays(header["arrays"], content)
        start = arrays.get("start")
        task = Task(
            to_unit(arrays["probes"]),
            arrays["references"],
            arrays["dodging"],
            Decision(**header["decision"]),
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
            described, model, digest, reading = header["model"]
            manifest = replace(read_manifest(Path(described)), model=Path(model))
            if model_sha256(manifest.model) != digest:
                raise InputError(f"{manifest.model}: this worker has a different file than the audit; copy it here")
            if manifest.reading != reading:
                raise InputError(f"{manifest.path}: this worker has a different manifest than the audit; copy it here")
            self._benches[key] = Bench(manifest, Execution(*header["execution"]), header["seed"])
        return self._benches[key]


def _file(path: str, digest: str) -> Path:
    check_sha256(Path(path), digest)
    return Path(path)


def attack_with(name: str, parameters: dict[str, Any]) -> Attack:
    """Find a registered attack, and set its parameters from values that were read from JSON.

    Raises:
        UsageError: the attack does not exist.
        ValueError: the attack has other parameters.
    """
    attack = choose("attack", [name], discover("attack"))[0]
    known = {field.name for field in fields(attack)}
    if set(parameters) != known:
        raise ValueError(f"{name} has the parameters {sorted(known)}, not {sorted(parameters)}")
    kinds = get_type_hints(type(attack))
    values = {key: _parameter(kinds[key], value, f"{name}.{key}") for key, value in parameters.items()}
    return replace(attack, **{key: values[key] for key in known if getattr(attack, key) != values[key]})


def _parameter(kind: Any, value: Any, where: str) -> Any:
    if kind != Path | None:
        return from_plain(kind, value, where)
    return None if value is None else _file(*from_plain(tuple[str, str], value, where))


def _code(profile: Profile) -> list[str]:
    return [defense_code(defense) for defense in (*profile.defenses, *profile.squeezers)]


def _profile(source: str, digest: str, code: list[str]) -> Profile:
    if not source:
        return Profile("none", "", (), "")
    profile = read_profile(Path(source))
    if profile.sha256 != digest:
        raise InputError(f"{source}: this worker has a different profile than the audit; copy it here")
    if _code(profile) != code:
        raise InputError(
            f"{source}: this worker and the audit have different code of its defenses; install the same version"
        )
    return profile


def _arrays(named: Sequence[tuple[str, str, list[int]]], content: bytes) -> dict[str, NDArray[Any]]:
    arrays, at = {}, 0
    for name, kind, shape in named:
        count = math.prod(shape)
        arrays[name] = np.frombuffer(content, kind, count, at).reshape(shape)
        at += arrays[name].nbytes
    return arrays
