"""Workers of a Dask cluster: audits that are spread over machines.

Dask and not Ray: it is pure Python, installs in seconds beside any other library, runs wherever Python does, encrypts
by TLS, and gives the job of a lost worker to another one by itself. Nothing else of either is needed here.

A cluster is trusted: Dask sends functions and results by pickle, so whoever can talk to a scheduler can run code on its
workers. Keep it in a network of its own, or behind TLS. Its workers need this version of the toolkit, and the files of
model, checkpoint and profiles under the same paths; hashes of model and profile are checked.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from toolkit import __version__
from toolkit.audit.bench import Bench
from toolkit.audit.jobs import Job, Ticket, Workbench, pack_job
from toolkit.errors import InputError, SixpixelsError, UnavailableError

_SECONDS_TO_CONNECT = 20
# A job is given up when so many workers were lost while they had it.
_ATTEMPTS = 3
# TensorFlow and the verifiers of one process are used by one job at a time, whatever threads a worker has.
_ONE_JOB = threading.Lock()
_WORKBENCH = Workbench()


class DaskPool:
    """The workers of the scheduler at `address`, as many as there are."""

    def __init__(self, address: str, bench: Bench) -> None:
        """Connect.

        Raises:
            UnavailableError: Dask is not installed, nobody answers, or there are no workers.
        """
        try:
            from distributed import Client
        except ImportError as error:
            raise UnavailableError('--workers dask:// needs Dask: pip install "sixpixels[dask]"') from error
        self._bench = bench
        try:
            self._client: Any = Client(f"tcp://{address}", timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"dask://{address}: no scheduler answers ({' '.join(str(error).split())})"
            ) from error
        if not self._client.nthreads():
            self._client.close()
            raise UnavailableError(f"dask://{address}: the scheduler has no workers; start some")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def width(self) -> int:
        """Workers come and go."""
        return 2 * max(1, len(self._client.nthreads()))

    def submit(self, job: Job) -> Ticket:
        """See `Pool`."""
        future = self._client.submit(
            carry_out,
            pack_job(job, self._bench),
            __version__,
            pure=False,
            retries=_ATTEMPTS,
        )
        what = f"{job.attack.name} on {job.known.name}"

        def result() -> bytes:
            try:
                answer, refused = future.result()
            except SixpixelsError:
                raise
            except Exception as error:  # whatever happened to a worker, or in it
                raise UnavailableError(f"{what}: the cluster failed ({' '.join(str(error).split())[:300]})") from error
            if refused:
                raise InputError(refused)
            return answer

        return result


def carry_out(packed: bytes, version: str) -> tuple[bytes, str]:
    """Run on a worker: the content of the artifact, or why the attack cannot be run.

    Raises:
        UnavailableError: the worker has another version of the toolkit.
    """
    if version != __version__:
        raise UnavailableError(f"a worker has sixpixels {__version__}, the audit {version}; install one everywhere")
    with _ONE_JOB:
        try:
            return _WORKBENCH.run(packed), ""
        except InputError as error:
            return b"", str(error)
