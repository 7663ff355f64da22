"""What a network costs an audit on a Dask cluster: bytes for each pair, and time at several speeds of the line.

python benchmarks/cluster.py facenet-mini --pairs LFW --limit 64 --attacks gaussian --workers 2

A scheduler and its workers are processes on the loopback, over TLS. The audit reaches the scheduler through a proxy,
which counts the bytes of both directions and lets through as many in a second as the line would. All results go this
way, because the audit's own process keeps the artifacts. Beside it is the same audit with as many worker processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.certificates import make_certificates
from tests.clusters import Cluster

_PIECE = 64 * 1024


class Line:
    """A proxy on a port of its own that passes on so many bytes a second in each direction; 0 for any number."""

    def __init__(self, target: int, bytes_per_second: float) -> None:
        self.sent = self.received = 0
        self._target, self._speed = target, bytes_per_second
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        self.port = 0

        def serve() -> None:
            asyncio.set_event_loop(self._loop)
            server = self._loop.run_until_complete(asyncio.start_server(self._pass_on, "127.0.0.1", 0))
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            self._loop.run_forever()

        threading.Thread(target=serve, daemon=True).start()
        ready.wait()

    async def _pass_on(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pump(near_in, far_out, up=True), self._pump(far_in, near_out, up=False))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(_PIECE):
                if up:
                    self.sent += len(piece)
                else:
                    self.received += len(piece)
                if self._speed:
                    await asyncio.sleep(len(piece) / self._speed)
                target.write(piece)
                await target.drain()
        target.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--attacks", default="gaussian")
    parser.add_argument("--profiles", default="none,mean3")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabits", default="0,100,20", help="speeds of the line; 0 for the loopback itself")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        what = ["audit", args.verifier, "--pairs", args.pairs, "--limit", str(args.limit), "--attacks", args.attacks]
        what += ["--profiles", args.profiles, "--provider", "cpu", "-q"]
        print(f"{args.workers} processes: {audited(what, folder / 'processes', str(args.workers)):.1f} s")
        certificates = make_certificates(folder)
        with Cluster(certificates).start(args.workers) as cluster:
            for speed in map(float, args.megabits.split(",")):
                line = Line(cluster.port, speed * 1e6 / 8)
                files = {"ca": certificates.ca, "certificate": certificates.certificate, "key": certificates.key}
                tls = [word for option, path in files.items() for word in (f"--dask-{option}", str(path))]
                where = f"tls://127.0.0.1:{line.port}"
                seconds = audited([*what, *tls], folder / f"line{speed:g}", where)
                to, back = line.sent / args.limit / 1024, line.received / args.limit / 1024
                shown = f"{speed:g} Mbit/s" if speed else "no limit"
                print(f"cluster, {shown}: {seconds:.1f} s; {to:.0f} KiB a pair to the cluster, {back:.0f} KiB back")


def audited(command: list[str], run: Path, workers: str) -> float:
    """Seconds of an audit, from the start of Python."""
    start = time.monotonic()
    subprocess.run(  # noqa: S603 - the arguments of this command
        [sys.executable, "-P", str(ROOT / "cli.py"), *command, "--workers", workers, "--run", str(run)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - start


if __name__ == "__main__":
    main()
