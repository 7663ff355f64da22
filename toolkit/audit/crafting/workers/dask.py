"""Workers of a Dask cluster, which spread an audit over several machines.

Why Dask and not Ray: Dask is pure Python, quick to install and portable. It can encrypt its connections with TLS, and
it gives the job of a lost worker to another one.

The cluster must be trusted: Dask sends functions and results by pickle, so anybody who can reach the scheduler can run
code on its workers. Keep the cluster in a separate network, or use TLS. The workers need this version of the toolkit,
and the files of model, checkpoint and profiles under the same paths. Workers check the hashes of model and profiles.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from toolkit import __version__
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.jobs import Job, Ticket, Workbench, pack_job
from toolkit.errors import InputError, SixpixelsError, UnavailableError

_SECONDS_TO_CONNECT = 20
# Dask repeats a failed job this many times.
_ATTEMPTS = 3
# One job at a time per process, however many threads a worker has: jobs share TensorFlow and the verifiers.
_ONE_JOB = threading.Lock()
_WORKBENCH = Workbench()


class DaskPool:
    """All workers of a Dask scheduler."""

    def __init__(self, address: str, bench: Bench) -> None:
        """Connect to a scheduler.

        Args:
            address: host:port of the scheduler.
            bench: the verifiers.

        Raises:
            UnavailableError: Dask is not installed, the scheduler does not answer, or it has no workers.
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
                f"dask://{address}: no scheduler answers ({' '.join(str(error).split())}); check the address"
            ) from error
        if not self._client.nthreads():
            self._client.close()
            raise UnavailableError(f"dask://{address}: the scheduler has no workers; start at least one")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def width(self) -> int:
        """Twice the number of workers at this moment, which may change."""
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
            except Exception as error:  # a worker may fail with any error
                raise UnavailableError(f"{what}: the cluster failed ({' '.join(str(error).split())[:300]})") from error
            if refused:
                raise InputError(refused)
            return answer

        return result


def carry_out(packed: bytes, version: str) -> tuple[bytes, str]:
    """Run a job on a worker.

    Args:
        packed: the job, from `pack_job`.
        version: the audit's version of the toolkit.

    Returns:
        The content of the artifact and an empty text, or empty content and the reason why the attack cannot run.

    Raises:
        UnavailableError: the worker has another version of the toolkit.
    """
    if version != __version__:
        raise UnavailableError(
            f"a worker has sixpixels {__version__}, but the audit has {version}; install the same version everywhere"
        )
    with _ONE_JOB:
        try:
            return _WORKBENCH.run(packed), ""
        except InputError as error:
            return b"", str(error)
