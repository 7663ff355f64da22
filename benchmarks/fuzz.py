"""Mutated files and answers, for everything that reads what comes in.

    python benchmarks/fuzz.py --inputs 1000000 --minutes 60

Every module `*_targets.py` in tests/fuzz has a list TARGETS of (name, make_mutant(generator), run(content, folder)).
Each mutant is made by a generator of its own, seeded by --seed, the target's name and its number, so that any of them
can be made again. Forked processes run them, with a limit of memory and of time each. A target accepts a mutant by
returning, and refuses it by an error of the toolkit. Everything else is a fault: another exception, a signal, a hang, a
file outside of the folder, too much memory. Each faulty mutant is kept in build/fuzz. Every target gets the same time,
so that quick ones get more inputs. A run that was stopped goes on where it was. Exits with 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import itertools
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolkit.errors import SixpixelsError
from toolkit.files import write_bytes

ACCEPTED, REFUSED, CRASHED, STUCK, OUTSIDE, MEMORY = "accepted", "refused", "crashed", "stuck", "outside", "memory"
KINDS = (ACCEPTED, REFUSED, CRASHED, STUCK, OUTSIDE, MEMORY)
FAULTS = KINDS[2:]
# Inputs that a process gets at once.
_BLOCK = 100
# The first input of a process may take so much longer, because libraries are loaded for it.
_SECONDS_TO_LOAD = 50.0
# An input that waits for a core of a busy machine does not hang, unless it waits so many times as long as it may take.
_PATIENCE = 10.0
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events of Python that change files, and which of their arguments are paths.
_CHANGES = {
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.utime": (0,), "shutil.rmtree": (0,), "shutil.move": (0, 1),
}  # fmt: skip


class Target(NamedTuple):
    """What one kind of input goes through."""

    name: str
    make: Callable[[np.random.Generator], bytes]
    run: Callable[[bytes, Path], None]

    def mutant(self, seed: int, number: int) -> bytes:
        """Make the mutant of a number; the same one each time."""
        return self.make(np.random.default_rng([seed, zlib.crc32(self.name.encode()), number]))


class Block(NamedTuple):
    """Some inputs of a target: `number` times `_BLOCK` and those that follow."""

    target: str
    number: int


@dataclass
class Worker:
    """A forked process and the block that it runs.

    Attributes:
        at: the input that runs; None before the first.
        since: when it began.
        burnt: the processor's seconds that the process and its children had used by then.
        fresh: whether it has not yet done an input.
        counts: the kinds of the inputs of this block that are done.
    """

    process: int
    commands: int
    answers: Any
    folder: Path
    block: Block | None = None
    at: int | None = None
    since: float = 0.0
    burnt: float = 0.0
    fresh: bool = True
    counts: Counter[str] = field(default_factory=Counter)


def discover(folder: Path) -> dict[str, list[Target]]:
    """The targets of every module `*_targets.py` in a folder, by the name of the module."""
    sys.path.insert(0, str(folder.parent.parent))
    package = f"{folder.parent.name}.{folder.name}"
    found = {}
    for path in sorted(folder.glob("*_targets.py")):
        module = importlib.import_module(f"{package}.{path.stem}")
        found[path.stem] = [Target(*target) for target in module.TARGETS]
    return found


class Watch:
    """Notices, in a process that runs inputs, files that are written outside of the input's own folder."""

    def __init__(self, work: Path) -> None:
        """Watch this process from now on. Its working folder becomes one in which nothing may appear."""
        self.own, self._allowed, self._wrong = work / "own", (str(work / "own"), str(work / "temporary")), ""
        self._elsewhere, self._expected = work / "elsewhere", {"own", "temporary", "elsewhere", "input"}
        for folder in (self.own, self._elsewhere, work / "temporary"):
            folder.mkdir()
        tempfile.tempdir = str(work / "temporary")
        os.environ["MPLCONFIGDIR"] = tempfile.tempdir  # a library that makes a cache at home when it is imported
        os.chdir(self._elsewhere)
        self._on = False
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        places = tuple(arguments[i] for i in _CHANGES.get(event, ()))
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            places = arguments[:1]
        for place in places:
            if isinstance(place, str | bytes | os.PathLike):
                path = os.path.realpath(_base(event, arguments) / os.fsdecode(place))
                inside = any(path == folder or path.startswith(folder + os.sep) for folder in self._allowed)
                if not inside and path != os.devnull:
                    self._wrong = f"{event} {path}"

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Watch while an input runs."""
        self._wrong, self._on = "", True
        try:
            yield
        finally:
            self._on = False

    def wrong(self) -> str:
        """What was written outside; empty for nothing. The input's folder is emptied."""
        strangers = {path.name for path in self.own.parent.iterdir()} - self._expected
        wrong = self._wrong or next(iter(strangers), "") or next((p.name for p in self._elsewhere.iterdir()), "")
        for folder in (self.own, self._elsewhere, Path(str(tempfile.tempdir))):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return wrong


def _base(event: str, arguments: tuple[Any, ...]) -> Path:
    """The folder that a change's relative paths start from: that of its descriptor, or the working folder."""
    descriptor = arguments[-1] if event in _CHANGES and event.startswith("os.") and event != "os.truncate" else -1
    if not isinstance(descriptor, int) or descriptor < 0:
        return Path()
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return Path()


def try_input(target: Target, content: bytes, watch: Watch) -> tuple[str, str]:
    """The kind of what comes of an input, and what a fault says."""
    kind, said = ACCEPTED, ""
    try:
        with watch.looking():
            target.run(content, watch.own)
    except SixpixelsError:
        kind = REFUSED
    except MemoryError:
        kind, said = MEMORY, traceback.format_exc()
    except BaseException:  # noqa: BLE001 - whatever it is, it is a fault
        kind, said = CRASHED, traceback.format_exc()
    wrong = watch.wrong()
    return (OUTSIDE, f"{said}{wrong}") if wrong and kind in (ACCEPTED, REFUSED) else (kind, said)


def serve(commands: int, answers: int, work: Path, targets: list[Target], asked: argparse.Namespace) -> NoReturn:
    """Run the blocks that a process is told to, until it is told no more. Before an input runs, it is written down."""
    by_name = {target.name: target for target in targets}
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(answers, "w", buffering=1)
    watch, kept = Watch(work), work / "input"
    limited = False
    for line in os.fdopen(commands):
        name, begin, end = json.loads(line)
        target = by_name[name]
        for number in range(begin, end):
            kept.unlink(missing_ok=True)
            print(json.dumps([number]), file=out)
            content = target.mutant(asked.seed, number)
            kept.write_bytes(content)
            kind, said = try_input(target, content, watch)
            print(json.dumps([number, kind, said]), file=out)
            if not limited:  # what the target has loaded by now does not count
                limit = _data_size() + asked.memory
                resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
                limited = True
    os._exit(0)


def _data_size() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


class Fuzz:
    """A run: what is done of it, who does the rest, and what came of it."""

    def __init__(self, asked: argparse.Namespace, targets: list[Target]) -> None:
        self.asked, self.targets = asked, {target.name: target for target in targets}
        self.counts = {name: Counter[str]() for name in self.targets}
        self.seconds = dict.fromkeys(self.targets, 0.0)
        self.done: dict[str, set[int]] = {name: set() for name in self.targets}
        self._given: dict[str, set[int]] = {name: set() for name in self.targets}
        self._blocks = -(-asked.inputs // _BLOCK)
        self._state, self._saved = asked.output / f"seed-{asked.seed}.json", time.monotonic()
        self._until = time.monotonic() + 60 * asked.minutes if asked.minutes else float("inf")
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        if asked.restart:
            self._state.unlink(missing_ok=True)
        elif self._state.exists():
            self._load()

    def _load(self) -> None:
        state = json.loads(self._state.read_bytes())
        for name, one in state.items():
            if name in self.targets:
                self.counts[name], self.done[name] = Counter(one["counts"]), set(one["done"])
                self.seconds[name] = one["seconds"]
                self._given[name] = set(self.done[name])

    def save(self) -> None:
        """Write down what is done, so that this run can go on later."""
        old = json.loads(self._state.read_bytes()) if self._state.exists() else {}
        new = {
            name: {"counts": self.counts[name], "done": sorted(self.done[name]), "seconds": self.seconds[name]}
            for name in self.targets
        }
        write_bytes(self._state, json.dumps(old | new).encode())
        self._saved = time.monotonic()

    def run(self, work: Path) -> None:
        """Run all blocks, or stop at Ctrl-C or when the time is over; blocks that are not complete run again later."""
        try:
            for place in range(self.asked.workers):
                self._start(work / str(place))
            while any(worker.block for worker in self._workers):
                for key, _ in self._selector.select(0.2):
                    self._hear(key.data)
                self._watch_time()
                if time.monotonic() - self._saved > 5:
                    self.save()
                    self.tell()
                if time.monotonic() > self._until:
                    break
        except KeyboardInterrupt:
            print("\nstopped; give the command again to go on", file=sys.stderr)
        finally:
            for worker in self._workers:
                os.kill(worker.process, signal.SIGKILL)
                os.waitpid(worker.process, 0)
            self.save()

    def tell(self) -> None:
        """Say on a terminal how far this run is."""
        if sys.stderr.isatty():
            total = Counter[str]()
            for counts in self.counts.values():
                total += counts
            print("\r" + "  ".join(f"{total[kind]} {kind}" for kind in KINDS), end="", file=sys.stderr)

    def _next(self) -> Block | None:
        """The next block of a target that has none, or else of the one that took least time; None after the last."""
        if sum(map(len, self._given.values())) >= self._blocks:
            return None
        name = min(self.targets, key=lambda name: (bool(self._given[name]), self.seconds[name]))
        number = next(number for number in itertools.count() if number not in self._given[name])
        self._given[name].add(number)
        return Block(name, number)

    def _start(self, work: Path, after: Worker | None = None) -> None:
        """Fork a process. It goes on with the block of a dead one, after the input of which that one died."""
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        commands, answers = os.pipe(), os.pipe()
        process = os.fork()
        if not process:
            try:
                os.close(commands[1])
                serve(commands[0], answers[1], work, list(self.targets.values()), self.asked)
            finally:
                os._exit(70)
        os.close(commands[0])
        os.close(answers[1])
        worker = Worker(process, commands[1], os.fdopen(answers[0], "rb", buffering=0), work)
        self._workers.append(worker)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        if after is None or after.block is None:
            self._give(worker, self._next(), 0)
        else:
            worker.counts = after.counts
            self._give(worker, after.block, after.counts.total())

    def _give(self, worker: Worker, block: Block | None, skip: int) -> None:
        worker.block, worker.at, worker.since = block, None, time.monotonic()
        worker.burnt = _use_of(worker.process).seconds
        if block is None:
            return
        begin = block.number * _BLOCK
        if skip == _BLOCK:
            self._complete(worker)
            return
        line = json.dumps([block.target, begin + skip, begin + _BLOCK]) + "\n"
        os.write(worker.commands, line.encode())

    def _complete(self, worker: Worker) -> None:
        assert worker.block is not None  # noqa: S101 - for mypy: only called for a block
        name = worker.block.target
        self.counts[name] += worker.counts
        self.done[name].add(worker.block.number)
        worker.counts = Counter()
        self._give(worker, self._next(), 0)

    def _hear(self, worker: Worker) -> None:
        """Read what a process says, or notice that it died."""
        line = b""
        while not line.endswith(b"\n"):
            part = os.read(worker.answers.fileno(), 1)
            if not part:
                self._bury(worker, CRASHED)
                return
            line += part
        self._note(worker, json.loads(line))

    def _note(self, worker: Worker, said: list[Any]) -> None:
        if len(said) == 1:
            worker.at, worker.since, worker.burnt = said[0], time.monotonic(), _use_of(worker.process).seconds
            return
        _, kind, text = said
        name = str(worker.block and worker.block.target)
        self.seconds[name] += time.monotonic() - worker.since
        worker.counts[kind] += 1
        if kind in FAULTS:
            # The process is already at its next input.
            self._keep(worker, kind, text, self.targets[name].mutant(self.asked.seed, said[0]))
        worker.at, worker.since, worker.fresh = None, time.monotonic(), False
        if worker.counts.total() == _BLOCK:
            self._complete(worker)

    def _keep(self, worker: Worker, kind: str, text: str, content: bytes) -> None:
        """Keep a faulty input, under its hash, and what it said."""
        text += f"\ninput {worker.at} of seed {self.asked.seed}\n"
        folder = self.asked.output / str(worker.block and worker.block.target)
        name = f"{kind}-{hashlib.sha256(content).hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, content)
        write_bytes(folder / f"{name}.txt", text.encode("utf-8", "backslashreplace"))

    def _watch_time(self) -> None:
        """End the inputs that compute for too long, or sleep, or get no core within any reasonable time."""
        for worker in list(self._workers):
            allowed = self.asked.seconds + (_SECONDS_TO_LOAD if worker.fresh else 0)
            passed = time.monotonic() - worker.since
            if worker.block is None or passed <= allowed:
                continue
            use = _use_of(worker.process)
            if use.seconds - worker.burnt > allowed or not use.waits or passed > _PATIENCE * allowed:
                os.kill(worker.process, signal.SIGKILL)
                self.seconds[worker.block.target] += passed
                self._bury(worker, STUCK)

    def _bury(self, worker: Worker, kind: str) -> None:
        """Count the input of which a process died, and let another process go on."""
        self._selector.unregister(worker.answers)
        self._workers.remove(worker)
        _, status = os.waitpid(worker.process, 0)
        os.close(worker.commands)
        worker.answers.close()
        if worker.block is None:
            return
        if worker.at is None:
            sys.exit(f"{worker.block.target}: the process ends before its first input; run its test to see why")
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        worker.counts[kind] += 1
        kept = worker.folder / "input"
        content = kept.read_bytes() if kept.exists() else b""  # none if making the mutant has failed
        said = f"the process ended by {how}" if kind == CRASHED else "it did not end in time"
        self._keep(worker, kind, said, content)
        self._start(worker.folder, worker)


class Use(NamedTuple):
    """Seconds of the processor that a process and its children used, and whether one of them has or wants a core."""

    seconds: float
    waits: bool


def _use_of(process: int) -> Use:
    """The use of the processor by a process; none if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    except OSError:
        return Use(0.0, waits=False)
    below = [_use_of(int(child)) for child in children]
    # utime, stime, and those of the children that have ended
    seconds = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return Use(seconds + sum(use.seconds for use in below), fields[0] == "R" or any(use.waits for use in below))


def table(fuzz: Fuzz) -> str:
    """What came of the inputs, by target and kind."""
    width = max(len(name) for name in [*fuzz.targets, "together"])
    rows: list[tuple[str, ...]] = [("target", "inputs", *KINDS, "seconds")]
    total, seconds = Counter[str](), 0.0
    for name, counts in fuzz.counts.items():
        rows.append((name, f"{counts.total()}", *(f"{counts[kind]}" for kind in KINDS), f"{fuzz.seconds[name]:.0f}"))
        total, seconds = total + counts, seconds + fuzz.seconds[name]
    rows.append(("together", f"{total.total()}", *(f"{total[kind]}" for kind in KINDS), f"{seconds:.0f}"))
    return "\n".join(f"{row[0]:{width}}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows)


def replay(path: Path, targets: dict[str, Target]) -> None:
    """Run one kept input in this process, so that its traceback and a debugger can be seen."""
    with tempfile.TemporaryDirectory() as folder:
        targets[path.parent.name].run(path.read_bytes(), Path(folder))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs in all, shared by the targets")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--targets", help="names of targets or of their modules, with commas; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=10.0, help="the longest time of one input")
    parser.add_argument("--memory", type=int, default=2 << 30, help="the most memory of one input, in bytes")
    parser.add_argument("--folder", type=Path, default=ROOT / "tests" / "fuzz", help="where the targets are")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--restart", action="store_true", help="forget what an earlier run of this seed has done")
    parser.add_argument("--replay", type=Path, help="run one kept input, TARGET/NAME, and nothing else")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    asked = parse(arguments)
    # A shell starts what is in the background with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    modules = discover(asked.folder.resolve())
    everything = {target.name: target for targets in modules.values() for target in targets}
    if asked.replay:
        replay(asked.replay, everything)
        return 0
    wanted = asked.targets.split(",") if asked.targets else list(everything)
    expanded = {n: [t.name for t in modules[f"{n}_targets"]] if f"{n}_targets" in modules else [n] for n in wanted}
    names = list(dict.fromkeys(name for some in expanded.values() for name in some))
    if not names or not set(names) <= set(everything):
        sys.exit(f"no target {', '.join(sorted(set(names) - set(everything)))}; there are {', '.join(everything)}")
    asked.output = asked.output.resolve()
    asked.output.mkdir(parents=True, exist_ok=True)
    fuzz = Fuzz(asked, [everything[name] for name in names])
    with tempfile.TemporaryDirectory() as work:
        fuzz.run(Path(work).resolve())
    print(table(fuzz))
    faults = sum(counts[kind] for counts in fuzz.counts.values() for kind in FAULTS)
    if faults:
        print(f"{faults} faults; the inputs are in {asked.output}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
