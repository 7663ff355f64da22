"""Workers: who carries out the jobs of an audit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from toolkit.audit.bench import Bench
from toolkit.audit.jobs import InProcess, Pool
from toolkit.errors import UsageError

_MOST = 1024


def check_workers(workers: str) -> str:
    """A number of processes on this machine, or the address of a Dask scheduler, for example ``dask://host:8786``.

    Raises:
        UsageError: it is neither.
    """
    if workers.startswith("dask://") and len(workers) > len("dask://"):
        return workers
    if workers.isascii() and workers.isdecimal() and 1 <= int(workers[:9]) <= _MOST:
        return workers
    raise UsageError(f"--workers {workers!r}: give a number of processes, or dask://host:port")


@contextmanager
def open_pool(workers: str, bench: Bench) -> Iterator[Pool]:
    """The pool that `check_workers` let pass: jobs run in this process for 1, in processes of their own for more.

    ONNX Runtime has the bench's number of threads in every worker process, or one where that is left open, for more of
    them would fight for the same cores. Its results do not depend on it; for TensorFlow's see `verifiers.quiet`.

    Raises:
        UnavailableError: there is no such scheduler, or Dask is not installed.
    """
    if workers == "1":
        yield InProcess(bench)
        return
    threads = bench.execution.threads or 1
    apart = Bench(bench.manifest, replace(bench.execution, threads=threads), bench.seed)
    if workers.startswith("dask://"):
        from toolkit.audit.workers.dask import DaskPool

        with DaskPool(workers.removeprefix("dask://"), apart) as cluster:
            yield cluster
    else:
        from toolkit.audit.workers.processes import ProcessPool

        with ProcessPool(int(workers), apart) as processes:
            yield processes
