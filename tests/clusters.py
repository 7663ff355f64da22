"""A Dask cluster of real processes on the loopback, over TLS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.certificates import Certificates
from toolkit.audit.workers import Workers
from toolkit.audit.workers.dask import _security

_SECONDS_TO_START = 60


class Cluster:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, certificates: Certificates) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"tls://127.0.0.1:{self.port}"
        self.certificates = certificates
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []

    @property
    def as_workers(self) -> Workers:
        """What an audit is told."""
        files = self.certificates
        return Workers(self.address, files.ca, files.certificate, files.key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_workers()
        self.kill_scheduler()

    def start(self, workers: int) -> Self:
        """Start the scheduler and some workers, and wait until the scheduler knows them."""
        self._scheduler = self._run("scheduler", "--port", str(self.port), "--host", "tls://127.0.0.1")
        return self.add_workers(workers) if workers else self

    def add_workers(self, count: int, name: str = "worker", path: Path | None = None) -> Self:
        """Start workers, whose modules come from the folder `path` first, and wait for them."""
        from distributed import Client

        for number in range(count):
            arguments = (self.address, "--name", f"{name}-{number}", "--nthreads", "1", "--no-nanny")
            self._workers.append(self._run("worker", *arguments, path=path))
        with Client(
            self.address, security=_security(self.as_workers), timeout=_SECONDS_TO_START, set_as_default=False
        ) as client:
            client.wait_for_workers(len(self._workers), timeout=_SECONDS_TO_START)
        return self

    def kill_scheduler(self) -> None:
        """Kill it as a crash would."""
        if self._scheduler is not None:
            _kill(self._scheduler)

    def kill_a_worker(self) -> None:
        """Kill one of them."""
        _kill(self._workers.pop())

    def kill_workers(self) -> None:
        """Kill all of them."""
        for worker in self._workers:
            _kill(worker)
        self._workers.clear()

    def _run(self, what: str, *arguments: str, path: Path | None = None) -> subprocess.Popen[bytes]:
        files = self.certificates
        tls = ("--tls-ca-file", str(files.ca), "--tls-cert", str(files.certificate), "--tls-key", str(files.key))
        environment = os.environ | ({} if path is None else {"PYTHONPATH": str(path)})
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "distributed.cli.dask_" + what, *arguments, *tls, "--no-dashboard"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(there: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until a function returns true."""
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)
