"""Workers: processes or a Dask cluster that run the jobs of an audit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.jobs import InProcess, Pool
from toolkit.errors import UsageError

_MOST = 1024


def check_workers(workers: str) -> str:
    """Check the option --workers: a number of processes, or a Dask scheduler, for example ``dask://host:8786``.

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
    """Open a pool of workers: this process for "1", several processes for a larger number, or a Dask cluster.

    In every worker, ONNX Runtime uses the bench's number of threads. If the bench leaves it open, it uses one thread,
    because the workers share the cores. The number does not change results; for TensorFlow, see `toolkit.quiet`.

    Args:
        workers: an option that `check_workers` accepts.
        bench: the verifiers.

    Raises:
        UnavailableError: the scheduler does not answer, or Dask is not installed.
    """
    if workers == "1":
        yield InProcess(bench)
        return
    threads = bench.execution.threads or 1
    apart = Bench(bench.manifest, replace(bench.execution, threads=threads), bench.seed)
    if workers.startswith("dask://"):
        from toolkit.audit.crafting.workers.dask import DaskPool

        with DaskPool(workers.removeprefix("dask://"), apart) as cluster:
            yield cluster
    else:
        from toolkit.audit.crafting.workers.processes import ProcessPool

        with ProcessPool(int(workers), apart) as processes:
            yield processes
