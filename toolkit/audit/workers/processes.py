"""Workers as processes on this machine, spoken to over pipes: a length of eight bytes, then so many bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from toolkit.audit.bench import Bench
from toolkit.audit.jobs import Job, Ticket, pack_job
from toolkit.errors import InputError, UnavailableError

# How often a job is given to a fresh process before it is given up.
_ATTEMPTS = 3
# How an answer begins: an artifact, why the attack cannot be run, why nothing can be run here.
DONE, REFUSED, UNABLE = b"+", b"-", b"!"
# Workers run this very toolkit, wherever they are started.
_ROOT = str(Path(__file__).resolve().parents[3])


class ProcessPool:
    """`count` processes; one that dies is replaced, and its job given to the next."""

    def __init__(self, count: int, bench: Bench) -> None:
        """Processes start with their first jobs.

        Args:
            count: how many.
            bench: what jobs run on; every process makes its own.
        """
        self._bench = bench
        self._threads = ThreadPoolExecutor(count)
        self._own = threading.local()
        self._lock, self._processes, self._closed = threading.Lock(), set[subprocess.Popen[bytes]](), False
        self.width = 2 * count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all processes at once: what they have not finished is made anew by the next audit."""
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
            f"{job.attack.name} on {job.known.name}: {_ATTEMPTS} worker processes died of the same pairs; "
            "is the memory full? Try fewer --workers"
        )

    def _ask(self, packed: bytes) -> bytes:
        process = getattr(self._own, "process", None) or self._start()
        send(process.stdin, packed)
        return receive(process.stdout)

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        with self._lock:
            if self._closed:
                raise UnavailableError("the audit is being stopped")
            process = subprocess.Popen(
                [sys.executable, "-m", "toolkit.audit.workers.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path},
            )
            self._processes.add(process)
        self._own.process = process
        return process


def send(stream: IO[bytes] | None, content: bytes) -> None:
    """Write one message.

    Raises:
        OSError: nobody reads any more.
    """
    assert stream is not None  # noqa: S101 - for mypy: it was asked for as a pipe
    stream.write(len(content).to_bytes(8, "little"))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes] | None) -> bytes:
    """Read one message.

    Raises:
        EOFError: nobody writes any more.
    """
    assert stream is not None  # noqa: S101 - for mypy: it was asked for as a pipe
    size = int.from_bytes(_exactly(stream, 8), "little")
    return _exactly(stream, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
