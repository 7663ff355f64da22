"""Start the model server, stop it, and start it again at the same ports."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from toolkit.verifiers.manifest import find_manifest

WAYS = {"json": "", "binary": "binary = true\n", "grpc": 'protocol = "grpc"\n'}
SCRIPT = Path(__file__).with_name("serve.py")
# An idle machine needs about three.
SECONDS = 120


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


class Served:
    """The server of the ONNX files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.grpc_port = free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_url(self) -> str:
        return f"http://127.0.0.1:{self.grpc_port}"

    def start(self) -> None:
        command = [sys.executable, str(SCRIPT), str(self.folder), str(self.port), str(self.grpc_port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        until = time.monotonic() + SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise AssertionError((self.folder / "log").read_text()[-3000:])
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5):
                pass
            with socket.create_connection(("127.0.0.1", self.grpc_port), 5):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """Kill the server, as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def next(self, faults: Sequence[str]) -> None:
        """Say what happens to the next requests for embeddings: see `serve.py`."""
        (self.folder / "faults").write_text("\n".join(faults))


def describe(
    folder: Path,
    served: Served,
    way: str,
    model: str = "bare",
    limits: str = "retries = 1",
    calls: int = 1000,
    batch: int = 3,
) -> Path:
    """Write the `remote.toml` of a served model."""
    text = find_manifest("facenet-mini").path.read_text()
    tables = text[text.index("[input]") :]
    path = folder / f"{model}-{way}.toml"
    url = served.grpc_url if way == "grpc" else served.url
    path.write_text(
        f'schema = 1\nkind = "open-inference"\nname = "far"\nurl = "{url}"\nmodel = "{model}"\n'
        f"batch = {batch}\n{WAYS[way]}"
        f"{tables}\n[limits]\ncalls_per_second = 10000\nmax_calls = {calls}\n{limits}\n"
    )
    return path
