"""Workers of a Dask cluster, which spread an audit over several machines.

Why Dask and not Ray: Dask is pure Python, quick to install and portable. It can encrypt its connections with TLS, and
it gives the job of a lost worker to another one.

The cluster must be trusted, and TLS changes nothing about that: Dask sends functions and results by pickle. Anybody who
can reach the scheduler runs code on its workers, and whoever answers as the scheduler runs code in the audit's own
process. TLS keeps others out: both sides must have a certificate of one authority. Dask does not compare names, so make
an authority for the cluster alone.

The workers need this version of the toolkit, and the files of model, checkpoint and profiles under the same paths. They
check versions and hashes, and a worker that has something else ends the audit with its name. The audit's own process
keeps the artifacts: workers need no shared storage, and write nothing.

If the scheduler ends and starts again at the same address, the audit gives it the unfinished jobs once more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from toolkit import __version__
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.jobs import Job, Ticket, pack_job
from toolkit.audit.workers import Workers
from toolkit.audit.workers.workbench import Workbench
from toolkit.errors import InputError, SixpixelsError, UnavailableError

_SECONDS_TO_CONNECT = 20
# How long a cluster may be without its scheduler or without workers while an audit runs.
_SECONDS_TO_RETURN = 120.0
_SECONDS_TO_LOOK = 5.0
# How many times a job is given to a cluster whose scheduler is lost.
_ATTEMPTS = 10
# One job at a time per process, however many threads a worker has: jobs share TensorFlow and the verifiers.
_ONE_JOB = threading.Lock()
_WORKBENCH = Workbench()


class DaskPool:
    """All workers of a Dask scheduler."""

    def __init__(self, workers: Workers, bench: Bench) -> None:
        """Connect to a scheduler.

        Args:
            workers: its address, and the files of TLS.
            bench: the verifiers.

        Raises:
            UnavailableError: Dask is not installed, the scheduler does not answer, or it has no workers.
            InputError: a certificate cannot be used.
        """
        try:
            from distributed import Client
        except ImportError as error:
            raise UnavailableError(f'--workers {workers.where} needs Dask: pip install "sixpixels[dask]"') from error
        self._bench = bench
        more = {"security": _security(workers)} if workers.where.startswith("tls://") else {}
        address = workers.where.replace("dask://", "tcp://")
        self._where, self._returning = workers.where, threading.Lock()
        self._open: Callable[[], Any] = partial(
            Client, address, timeout=_SECONDS_TO_CONNECT, set_as_default=False, **more
        )
        self._client = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def _connect(self) -> Any:
        try:
            client = self._open()
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"{self._where}: no scheduler answers ({' '.join(str(error).split())[:300]}); check the address"
            ) from error
        if not client.nthreads():
            client.close()
            raise UnavailableError(f"{self._where}: the scheduler has no workers; start at least one")
        return client

    def _connect_again(self, lost: Any) -> None:
        """Replace a client that lost its scheduler, unless another thread has."""
        with self._returning:
            if self._client is not lost:
                return
            lost.close()
            until = time.monotonic() + _SECONDS_TO_RETURN
            while True:
                try:
                    self._client = self._connect()
                except UnavailableError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(1)
                else:
                    return

    @property
    def width(self) -> int:
        """Twice the number of workers at this moment, which may change."""
        return 2 * max(1, _workers_of(self._client))

    def submit(self, job: Job) -> Ticket:
        """See `Pool`."""
        packed = pack_job(job, self._bench)
        given = self._give(packed)

        def result() -> bytes:
            nonlocal given
            lost = Exception()
            for _ in range(_ATTEMPTS):
                client, future = given
                try:
                    answer, refused = self._wait(client, future)
                except SixpixelsError:
                    raise
                except Exception as error:  # a worker may fail with any error
                    if future.status == "error" and client is self._client:
                        raise self._fail(job, error) from error
                    # The scheduler was lost. Another thread may have noticed it first.
                    lost = error
                    self._connect_again(client)
                    given = self._give(packed)
                else:
                    if refused:
                        raise InputError(refused)
                    return answer
            raise self._fail(job, lost) from lost

        return result

    @staticmethod
    def _fail(job: Job, error: Exception) -> UnavailableError:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return UnavailableError(f"{job.name}: the cluster failed ({reason})")

    def _give(self, packed: bytes) -> tuple[Any, Any]:
        """Give a job to the cluster. Returns the client and its future."""
        # Dask gives the job of a lost worker to another one by itself. A job that fails would fail again.
        if self._client.status == "closed":
            self._connect_again(self._client)
        client = self._client
        return client, client.submit(carry_out, packed, __version__, pure=False)

    def _wait(self, client: Any, future: Any) -> tuple[bytes, str]:
        """Wait for a job as long as the cluster has workers. Dask itself would wait without end.

        A job that is done waits too: its result is on its worker, and the job starts again if that worker is lost.
        """
        seen = time.monotonic()
        while True:
            try:
                answer: tuple[bytes, str] = future.result(timeout=_SECONDS_TO_LOOK)
            except TimeoutError:
                if future.status == "error":
                    raise future.exception(timeout=_SECONDS_TO_LOOK) from None
            else:
                return answer
            if _workers_of(client):
                seen = time.monotonic()
            elif time.monotonic() - seen > _SECONDS_TO_RETURN:
                raise UnavailableError(
                    f"{self._where}: the cluster has had no worker for {_SECONDS_TO_RETURN:.0f} seconds; start one, "
                    "and give the command again"
                )


def _workers_of(client: Any) -> int:
    """How many workers the scheduler has; 0 without a scheduler."""
    try:
        return len(client.nthreads())
    except (OSError, RuntimeError, AttributeError):  # what a client that lost its scheduler raises
        return 0


def _security(workers: Workers) -> Any:
    from distributed import Security

    files = {"tls_ca_file": workers.ca, "tls_client_cert": workers.certificate, "tls_client_key": workers.key}
    given = {name: str(path) for name, path in files.items() if path is not None}
    security = Security(require_encryption=True, **given)
    try:
        security.get_connection_args("client")
    except OSError as error:  # among them, errors of TLS
        raise InputError(f"{', '.join(given.values())}: cannot be used for TLS ({error})") from error
    return security


def carry_out(packed: bytes, version: str) -> tuple[bytes, str]:
    """Run a job on a worker.

    Args:
        packed: the job, from `pack_job`.
        version: the audit's version of the toolkit.

    Returns:
        The content of the artifact and an empty text, or empty content and the reason why the job cannot be done.

    Raises:
        UnavailableError: the worker has another version, other files or other code than the audit. The message names
            the worker.
    """
    try:
        if version != __version__:
            raise UnavailableError(
                f"this worker has sixpixels {__version__}, but the audit has {version}; "
                "install the same version everywhere"
            )
        with _ONE_JOB:
            return _WORKBENCH.run(packed), ""
    except InputError as error:
        return b"", str(error)
    except SixpixelsError as error:
        raise UnavailableError(f"worker {_own_name()}: {error}") from error


def _own_name() -> str:
    from distributed import get_worker

    worker = get_worker()
    return f"{worker.address}" if worker.name in {None, worker.address} else f"{worker.name} ({worker.address})"
