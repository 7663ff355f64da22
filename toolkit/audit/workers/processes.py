"""Worker processes on this machine. Messages go through pipes: eight bytes of length, then the content."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import IO, Self

from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.jobs import Job, Ticket, pack_job
from toolkit.errors import InputError, UnavailableError
from toolkit.processes import start_module
from toolkit.verifiers.trial import tried_environment

# How many processes may die of the same job.
_ATTEMPTS = 3
# First byte of an answer. DONE: an artifact follows. REFUSED: the job cannot be done. UNABLE: the worker cannot run.
DONE, REFUSED, UNABLE = b"+", b"-", b"!"


class ProcessPool:
    """A fixed number of processes. If one dies, a new process takes over its job."""

    def __init__(self, count: int, bench: Bench) -> None:
        """Prepare the pool. A process starts when it gets its first job.

        Args:
            count: number of processes.
            bench: the verifiers; every process builds its own copy.
        """
        self._bench = bench
        self._threads = ThreadPoolExecutor(count)
        self._own = threading.local()
        self._lock, self._processes, self._closed = threading.Lock(), set[subprocess.Popen[bytes]](), False
        self.width = 4 * count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all processes. The next audit does the unfinished jobs again."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()

    def submit(self, job: Job) -> Ticket:
        """See `Pool`."""
        return self._threads.submit(self._carry_out, pack_job(job, self._bench), job).result

    def _carry_out(self, packed: bytes, job: Job) -> bytes:
        for _ in range(_ATTEMPTS):
            try:
                answer = self._ask(packed)
            except (OSError, EOFError):
                self._own.process = None
                continue
            if answer[:1] == DONE:
                return answer[1:]
            raise (InputError if answer[:1] == REFUSED else UnavailableError)(answer[1:].decode())
        raise UnavailableError(
            f"{job.name}: {_ATTEMPTS} worker processes died of the same job, "
            "perhaps because memory is full; use fewer --workers"
        )

    def _ask(self, packed: bytes) -> bytes:
        process = getattr(self._own, "process", None) or self._start()
        send(process.stdin, packed)
        return receive(process.stdout)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise UnavailableError("the audit is being stopped")
            process = start_module("toolkit.audit.workers.process", environment=tried_environment())
            self._processes.add(process)
        self._own.process = process
        return process


def send(stream: IO[bytes] | None, content: bytes) -> None:
    """Write one message.

    Raises:
        OSError: the reader has closed the pipe.
    """
    assert stream is not None  # noqa: S101 - for mypy: the pipe was requested
    stream.write(len(content).to_bytes(8, "little"))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes] | None) -> bytes:
    """Read one message.

    Raises:
        EOFError: the writer has closed the pipe.
    """
    assert stream is not None  # noqa: S101 - for mypy: the pipe was requested
    size = int.from_bytes(_exactly(stream, 8), "little")
    return _exactly(stream, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
