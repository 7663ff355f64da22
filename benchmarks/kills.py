"""Audits that are stopped at random points, by kill -9, Ctrl-C and a full disk, and continued, must end the same.

An audit with certificates, reports and the paper's figures is followed by a replay of its probes on another verifier.
Every run is stopped a few times, each time with another number of threads or workers, has a bit of its artifacts turned
over, and is then continued to its end by two at once; all its files must be those of a run that was never stopped.
Exits with 1 where they are not.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Loaded before the forks, so that a stopped audit was stopped while it worked, and not while it loaded.
import cli
import toolkit.audit.results.record
import toolkit.audit.run
import toolkit.audit.suites
import toolkit.audit.transfer.transfer
import toolkit.documents
import toolkit.report.assessment
import toolkit.report.paper
import toolkit.report.risk
import toolkit.report.write
import toolkit.risk.rate  # noqa: F401
from tests.models import write_people
from toolkit.registry import Kind, discover

_KINDS: tuple[Kind, ...] = ("attack", "defense", "format")
for _kind in _KINDS:
    discover(_kind)

_STOPS_A_RUN = 4
_ALONE = ("--workers", "1", "--threads", "1")
# Who does the jobs of an audit.
_WAYS = (_ALONE, ("--workers", "1", "--threads", "3"), ("--workers", "2", "--threads", "1"))
Files = dict[str, bytes]


@dataclass(frozen=True)
class Commands:
    """An audit, and a replay of its probes on another verifier, without the folder of the run."""

    audit: tuple[str, ...]
    replay: tuple[str, ...]

    def on(self, run: Path, way: tuple[str, ...]) -> list[list[str]]:
        """Both commands on the folder of a run, with one of `_WAYS`."""
        return [["audit", *self.audit, *way, "--run", str(run)], ["replay", str(run), *self.replay]]


def start(commands: list[list[str]], largest_file: int | None) -> int:
    """Fork a process that runs the commands, one after the other; its number."""
    child = os.fork()
    if child:
        return child
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    if largest_file is not None:
        # A write past the limit fails as on a full disk, once the signal for it is ignored.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where this runs in the background
    try:
        for command in commands:
            sys.argv = ["sixpixels", *command]
            try:
                cli.main()
            except SystemExit as end:
                if end.code:
                    os._exit(end.code if isinstance(end.code, int) else 1)
        os._exit(0)
    finally:
        os._exit(70)


def finish(ways: list[list[list[str]]]) -> float:
    """Run commands to their end, all `ways` at once in the same folder; the seconds that it took."""
    begun = time.monotonic()
    for child in [start(commands, None) for commands in ways]:
        _, status = os.waitpid(child, 0)
        if status != 0:
            sys.exit(f"a run that nobody stopped failed with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - begun


def stop(commands: list[list[str]], how: str, after: float, room: dict[str, int]) -> bool:
    """Stop commands in their middle; False where they were done. `room` is for the largest file on a full disk."""
    child = start(commands, room.get(how))
    if how not in room:
        time.sleep(after)
        os.kill(child, signal.SIGKILL if how == "kill -9" else signal.SIGINT)
    _, status = os.waitpid(child, 0)
    return status != 0


def damage(probes: Path, rng: random.Random) -> None:
    """Turn a bit over, somewhere."""
    for path in rng.sample(sorted(probes.glob("*.probes")), 1) if any(probes.glob("*.probes")) else ():
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)


def files(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, stopped = random.Random(asked.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_people(folder / "people", photos=7)  # crops smaller than artifacts
        other = write_people(folder / "others", photos=1)
        what = "--suite paper --attacks gaussian,uniform --profiles none,mean3 --provider cpu -q"
        what += " --certify 0.1 --certify-samples 20 --certify-confidence 0.9 --format html,markdown,sarif"
        commands = Commands(
            (str(model), "--pairs", str(model.parent), *what.split()),
            ("--on", str(other), "--provider", "cpu", "--threads", "1", "-q"),
        )
        seconds = finish([commands.on(folder / "whole" / "run", _ALONE)])
        made = {name.split("-")[0] for name in files(folder / "whole" / "run")}
        if missing := {"transfer", "figure3.png", "figure5.png", "report.html"} - made:
            sys.exit(f"the run without a stop has no {', '.join(sorted(missing))}")
        whole, run = files(folder / "whole" / "run"), folder / "stopped" / "run"
        largest = max(len(content) for name, content in whole.items() if name.endswith(".probes"))
        # The first is too full for the crops, the second for the largest artifact alone.
        room = {"a full disk": 1000, "a disk full of probes": largest - 1}
        while stopped.total() < asked.kills:
            for _ in range(_STOPS_A_RUN):
                how = rng.choices(["kill -9", "Ctrl-C", *room], [6, 2, 1, 1])[0]
                stopped[how] += stop(commands.on(run, rng.choice(_WAYS)), how, rng.uniform(0, seconds), room)
                if rng.random() < 1 / 3:
                    damage(run / "probes", rng)
            finish([commands.on(run, way) for way in rng.sample(_WAYS, 2)])
            found = files(run)
            if found != whole:
                wrong = [name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name)]
                sys.exit(f"after {stopped.total()} stops a run ended otherwise: {', '.join(sorted(wrong))}")
            shutil.rmtree(run)
    how_often = ", ".join(f"{count} by {how}" for how, count in sorted(stopped.items()))
    print(f"{stopped.total()} runs of {seconds:.1f} s stopped ({how_often}): every run ended the same")


if __name__ == "__main__":
    main()
