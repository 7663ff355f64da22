"""Workers of a Dask cluster, which spread an audit over several machines.

Why Dask and not Ray: Dask is pure Python, quick to install and portable. It can encrypt its connections with TLS, and
it gives the job of a lost worker to another one.

The cluster must be trusted, and TLS changes nothing about that: Dask sends functions and results by pickle. Anybody who
can reach the scheduler runs code on its workers, and whoever answers as the scheduler runs code in the audit's own
process. TLS keeps others out: both sides must have a certificate of one authority. Dask does not compare names, so make
an authority for the cluster alone.

The workers need this version of the toolkit, and the files of model, checkpoint and profiles under the same paths.
Workers check the hashes of model and profiles.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from toolkit import __version__
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.jobs import Job, Ticket, pack_job
from toolkit.audit.workers import Workers
from toolkit.audit.workers.workbench import Workbench
from toolkit.errors import InputError, SixpixelsError, UnavailableError

_SECONDS_TO_CONNECT = 20
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
        try:
            self._client: Any = Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False, **more)
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"{workers.where}: no scheduler answers ({' '.join(str(error).split())[:300]}); check the address"
            ) from error
        if not self._client.nthreads():
            self._client.close()
            raise UnavailableError(f"{workers.where}: the scheduler has no workers; start at least one")

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
        # Dask gives the job of a lost worker to another one by itself. A job that fails would fail again.
        future = self._client.submit(carry_out, pack_job(job, self._bench), __version__, pure=False)
        what = f"{job.name}"

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
