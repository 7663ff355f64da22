"""Workers: threads, processes or a Dask cluster that run the jobs of an audit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.jobs import InProcess, Pool, threads_of
from toolkit.audit.options import AuditOptions
from toolkit.errors import UsageError
from toolkit.threads import Threads
from toolkit.verifiers.remote.config import is_loopback

_MOST = 1024


@dataclass(frozen=True)
class Workers:
    """Who does the jobs of an audit.

    Attributes:
        where: a number of processes, ``dask://host:port`` for a Dask scheduler, or ``tls://host:port`` with TLS.
        ca: for TLS, the PEM file of the authority that signed the certificates of the cluster.
        certificate: for TLS, the PEM file of this computer's certificate.
        key: the PEM file of its key; None if it is in the file of the certificate.
        trust_network: whether a scheduler on another computer may be called without TLS.
    """

    where: str = "1"
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    trust_network: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: `where` is neither a number nor an address, TLS lacks its files, or a scheduler on another
                computer would be called without TLS.
        """
        if self.is_cluster:
            self._check_address()
        elif not (self.where.isascii() and self.where.isdecimal() and 1 <= int(self.where[:9]) <= _MOST):
            raise self._fail("give a number of processes, or dask://host:port or tls://host:port")
        files = (self.ca, self.certificate, self.key)
        if self.where.startswith("tls://") and (self.ca is None or self.certificate is None):
            raise self._fail("TLS needs --dask-ca and --dask-certificate")
        if not self.where.startswith("tls://") and any(file is not None for file in files):
            raise self._fail("--dask-ca, --dask-certificate and --dask-key are for tls://host:port; give this address")

    @property
    def is_cluster(self) -> bool:
        """Whether a Dask cluster does the jobs."""
        return self.where.startswith(("dask://", "tls://"))

    def _check_address(self) -> None:
        try:
            parts = urlsplit(self.where)
            complete = bool(parts.hostname) and parts.port is not None
        except ValueError:
            complete = False
        if not complete or parts.netloc != self.where.partition("://")[2] or "@" in parts.netloc:
            raise self._fail("give a number of processes, or dask://host:port or tls://host:port")
        if parts.scheme == "dask" and not (is_loopback(parts.hostname) or self.trust_network):
            raise self._fail(
                "without TLS, anybody on the way can run code here and on the workers; give tls://host:port with "
                "--dask-ca and --dask-certificate, or --dask-trust-network if you trust every computer on this network"
            )

    def _fail(self, problem: str) -> UsageError:
        return UsageError(f"--workers {self.where!r}: {problem}")


# This process alone.
ALONE: Workers = Workers()


def chosen_workers(options: AuditOptions) -> Workers:
    """Return the workers that the options of an audit name.

    Raises:
        UsageError: see `Workers`.
    """
    o = options
    ca, certificate, key = (
        None if path is None else Path(path) for path in (o.dask_ca, o.dask_certificate, o.dask_key)
    )
    return Workers(o.workers, ca, certificate, key, o.dask_trust_network)


@contextmanager
def open_pool(workers: Workers, bench: Bench) -> Iterator[Pool]:
    """Open a pool of workers: this process for "1", several processes for a larger number, or a Dask cluster.

    This process does several jobs at once, one on each of the bench's threads. If the bench leaves their number open,
    there are as many as cores, and at most 4, because the jobs need memory. In every other worker, ONNX Runtime uses
    the bench's number of threads, or one, because the workers share the cores. No number changes results; for
    TensorFlow, see `toolkit.quiet`.

    Args:
        workers: who works.
        bench: the verifiers.

    Raises:
        UnavailableError: the scheduler does not answer, or Dask is not installed.
        InputError: a certificate cannot be used.
    """
    if workers.where == "1":
        count = threads_of(bench.execution)
        with Threads(count) as threads:
            yield InProcess(bench if count == 1 else bench.beside(threads=1), threads)
        return
    apart = bench.beside(bench.execution.threads or 1)
    if workers.is_cluster:
        from toolkit.audit.workers.dask import DaskPool

        with DaskPool(workers, apart) as cluster:
            yield cluster
    else:
        from toolkit.audit.workers.processes import ProcessPool

        with ProcessPool(int(workers.where), apart) as processes:
            yield processes
