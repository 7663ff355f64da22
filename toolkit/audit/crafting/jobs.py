"""Jobs: self-contained pieces of an audit, whose results come back in a fixed order.

A job contains its pixels and embeddings, so that a worker needs only the files of the model and the profile. The result
is the content of an artifact. The pairs alone determine the jobs, so that results do not depend on the number of
workers or on the distribution of jobs among them.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.bench import Bench, Verifiers
from toolkit.audit.crafting.artifacts import read_artifact
from toolkit.audit.crafting.code import profile_code
from toolkit.errors import InputError, UnavailableError
from toolkit.files import write_bytes
from toolkit.profiles.profile import Profile, read_profile
from toolkit.threads import Threads, cores
from toolkit.verifiers.runtime import Execution, threads_of_environment

Ticket = Callable[[], bytes]
A = TypeVar("A")
T = TypeVar("T")

# Each thread needs memory for the gradients of a batch.
_MOST_THREADS = 4


@dataclass(frozen=True)
class Parcel:
    """A job for another process: its kind, what goes into a line of JSON, and arrays by name."""

    kind: str
    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


class Job(Protocol):
    """A piece of work on a bench."""

    @property
    def name(self) -> str:
        """The job in words."""
        ...

    def run(self, bench: Verifiers) -> bytes:
        """Do the work.

        Returns:
            The content of its artifact.

        Raises:
            InputError: it cannot be done on this model.
        """
        ...

    def parcel(self) -> Parcel:
        """The job for another process.

        Raises:
            UnavailableError: something of it is not in a file, so that a worker cannot read it.
        """
        ...


class Pool(Protocol):
    """Runs jobs."""

    @property
    def width(self) -> int:
        """How many jobs to submit before waiting for the result of the first one."""
        ...

    def submit(self, job: Job) -> Ticket:
        """Start a job.

        Returns:
            A function that waits for the job and returns the artifact's content. It raises InputError if the job cannot
            be done, and UnavailableError if the workers fail.

        Raises:
            SixpixelsError: the job cannot be given to a worker.
        """
        ...


@dataclass(frozen=True)
class Step(Generic[A, T]):
    """One artifact: a file, and the job that makes it if the file is missing.

    Attributes:
        name: the artifact in words.
        about: what it is about.
        path: the file.
        decode: decodes its content; None if it is damaged.
        job: returns an InputError if the job cannot be prepared.
    """

    name: str
    about: A
    path: Path
    decode: Callable[[bytes], T | None]
    job: Callable[[], Job | InputError]


def finish(steps: Iterable[Step[A, T]], pool: Pool) -> Iterator[tuple[A, T | InputError]]:
    """Finish all steps: read the artifacts that exist and are undamaged, and make and write the others.

    Yields:
        What each step is about, in order, with its decoded artifact, or with an InputError if the job cannot be done.

    Raises:
        SixpixelsError: an artifact cannot be written, or the workers fail.
    """
    ahead: deque[tuple[A, Callable[[], T | InputError]]] = deque()
    for step in steps:
        begun = begin(step, pool)
        ahead.append((step.about, begun))
        while len(ahead) > pool.width:
            about, settle = ahead.popleft()
            yield about, settle()
    for about, settle in ahead:
        yield about, settle()


def finish_all(steps: Iterable[Step[A, T]], pool: Pool) -> Iterator[tuple[A, T]]:
    """Do what `finish` does, where every job must be done.

    Raises:
        InputError: a job cannot be done.
        SixpixelsError: see `finish`.
    """
    for about, found in finish(steps, pool):
        if isinstance(found, InputError):
            raise found
        yield about, found


def begin(step: Step[A, T], pool: Pool) -> Callable[[], T | InputError]:
    """Begin one step. Returns a function that finishes it; see `finish`."""
    found = step.decode(read_artifact(step.path))
    if found is not None:
        return lambda: found
    job = step.job()
    if isinstance(job, InputError):
        return lambda: job
    ticket = pool.submit(job)
    return lambda: _settle(step, ticket)


def _settle(step: Step[A, T], ticket: Ticket) -> T | InputError:
    try:
        content = ticket()
    except InputError as error:
        return error
    # Use the decoded artifact, not the original result, so that a continued audit finds the same results.
    found = step.decode(content)
    if found is None:
        raise UnavailableError(f"{step.name}: a worker sent damaged data; give the command again")
    write_bytes(step.path, content)
    return found


class InProcess:
    """A pool without workers: runs jobs in this process, on threads if there are several.

    Threads share the networks in TensorFlow, which take seconds to load and to trace.
    """

    def __init__(self, bench: Verifiers, threads: Threads | None = None) -> None:
        """Use the verifiers of `bench`. By default, each job runs when its result is requested."""
        self._bench, self._threads = bench, threads or Threads(1)
        self.width = self._threads.ahead

    def submit(self, job: Job) -> Ticket:
        """See `Pool`."""
        return self._threads.submit(partial(job.run, self._bench))


def threads_of(execution: Execution) -> int:
    """Return how many jobs a process does at once."""
    return execution.threads or threads_of_environment() or min(_MOST_THREADS, cores())


def pack_job(job: Job, bench: Bench) -> bytes:
    """Encode a job for another process: a line of JSON, then the arrays that it names.

    Raises:
        UnavailableError: see `Job.parcel`.
    """
    parcel, manifest = job.parcel(), bench.manifest
    arrays = {name: np.ascontiguousarray(array) for name, array in parcel.arrays.items()}
    header = {
        "kind": parcel.kind,
        "job": parcel.header,
        "model": [str(manifest.path.resolve()), str(manifest.model.resolve()), bench.model_sha256, manifest.reading],
        "execution": [getattr(bench.execution, field.name) for field in fields(Execution)],
        "seed": bench.seed,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in arrays.items()],
    }
    return json.dumps(header).encode() + b"\n" + b"".join(array.tobytes() for array in arrays.values())


def unpack_job(packed: bytes) -> tuple[dict[str, Any], Parcel]:
    """Decode what `pack_job` encoded: the header, which describes the bench, and the parcel."""
    line, _, content = packed.partition(b"\n")
    header = json.loads(line)
    arrays, at = {}, 0
    for name, kind, shape in header["arrays"]:
        count = math.prod(shape)
        arrays[name] = np.frombuffer(content, kind, count, at).reshape(shape)
        at += arrays[name].nbytes
    return header, Parcel(header["kind"], header["job"], arrays)


def packed_profile(profile: Profile) -> list[Any]:
    """Name a profile for another process: its file, its hash, and that of the code of its defenses.

    Raises:
        UnavailableError: the profile is not in a file.
    """
    if not (profile.source or profile.empty):
        raise UnavailableError(f"profile {profile.name} is not in a file, so workers cannot read it; use --workers 1")
    return [profile.source, profile.sha256, profile_code(profile)]


def packed_alarm(alarm: float) -> float | None:
    """A detector's threshold for a line of JSON, which has no infinity: None without a detector."""
    return None if math.isinf(alarm) else alarm


def unpacked_alarm(packed: float | None) -> float:
    """Read what `packed_alarm` gave."""
    return math.inf if packed is None else packed


def unpacked_profile(source: str, digest: str, code: list[str]) -> Profile:
    """Read a profile that `packed_profile` named.

    Raises:
        InputError: it is missing, or differs from that of the audit.
    """
    if not source:
        return Profile("none", "", (), "")
    profile = read_profile(Path(source))
    if profile.sha256 != digest:
        raise InputError(f"{source}: this worker has a different profile than the audit; copy it here")
    if profile_code(profile) != code:
        raise InputError(
            f"{source}: this worker and the audit have different code of its defenses; install the same version"
        )
    return profile
