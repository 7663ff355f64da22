"""What an audit costs, beside the floor: its own model calls alone, each kind in batches of the best size.

python benchmarks/audit.py facenet-mini --pairs LFW --limit 20 --suite quick

All arguments are those of `sixpixels audit`. The audit is timed as the user waits for it, from the first import to the
last line. While it runs, the images of every kind of call are counted: each verifier (a profile has its own), with and
without gradients. The floor is what as many images cost alone, with as many threads, right after the audit.
"s in the audit" is the sum over the threads.
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()

import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolkit.audit.crafting.jobs import threads_of
from toolkit.verifiers.runtime import Execution

# The batch sizes that are tried, how often each is timed, and the longest time for one of them.
_BATCHES = (1, 4, 8, 16, 32, 64)
_TURNS, _LONGEST = 3, 20.0
# Calls that each thread makes in a turn.
_AT_ONCE = 3
# Calls that run the model, by class; the last argument, if any, is the embeddings of references.
_CALLS = {
    "toolkit.verifiers.runtime.RuntimeVerifier": ("embed_and_score",),
    "toolkit.verifiers.tensorflow.TensorFlowVerifier": (
        "embed",
        "embed_and_score",
        "distances",
        "distances_and_gradients",
        "scores_and_gradients",
    ),
}


class Counted:
    """Counts the images of the calls that run a model. Calls within such a call are part of it."""

    def __init__(self) -> None:
        self.images: Counter[tuple[int, str]] = Counter()
        self.seconds: defaultdict[tuple[int, str], float] = defaultdict(float)
        self.verifiers: dict[int, Any] = {}
        self.shapes: dict[tuple[int, str], tuple[Any, ...]] = {}
        self._here, self._lock = threading.local(), threading.Lock()

    def watch(self) -> None:
        """Wrap the calls, for the rest of this process."""
        for name, methods in _CALLS.items():
            module, _, kind = name.rpartition(".")
            owner = getattr(__import__(module, fromlist=[kind]), kind)
            for method in methods:
                setattr(owner, method, self._counting(method, getattr(owner, method)))

    def _counting(self, method: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(verifier: Any, crops: Any, *others: Any, **named: Any) -> Any:
            if getattr(self._here, "inside", False):
                return call(verifier, crops, *others, **named)
            key = id(verifier), method
            with self._lock:
                self.verifiers[id(verifier)] = verifier
                self.images[key] += len(crops)
                self.shapes.setdefault(key, tuple(others))
            self._here.inside, start = True, time.perf_counter()
            try:
                return call(verifier, crops, *others, **named)
            finally:
                self._here.inside = False
                with self._lock:
                    self.seconds[key] += time.perf_counter() - start

        return counted


def alone(verifier: Any, method: str, others: tuple[Any, ...]) -> tuple[float, int]:
    """The least seconds of one image, with calls on as many threads as an audit has, and the best batch size."""
    side, count = verifier.manifest.input, threads_of(Execution())
    threads = ThreadPoolExecutor(count)
    best, started = (float("inf"), 0), time.perf_counter()
    for batch in _BATCHES:
        crops = np.random.default_rng(0).random((batch, side.height, side.width, 3), np.float32)
        given = [np.repeat(one[:1], batch, axis=0) if isinstance(one, np.ndarray) else one for one in others]
        call = partial(getattr(verifier, method), crops, *given)
        call()  # a new shape is slower once
        times = []
        for _ in range(_TURNS):
            start = time.perf_counter()
            for done in [threads.submit(call) for _ in range(_AT_ONCE * count)]:
                done.result()
            times.append(time.perf_counter() - start)
        best = min(best, (min(times) / (_AT_ONCE * count * batch), batch))
        if time.perf_counter() - started > _LONGEST:
            break
    return best


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(__doc__)
    import cli

    counted = Counted()
    counted.watch()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        cli.app(["audit", *arguments, "--run", str(Path(folder) / "run")], standalone_mode=False)
    wall = time.perf_counter() - _STARTED
    rows, floor, in_audit = [], 0.0, dict(counted.seconds)
    for (number, method), images in counted.images.most_common():
        verifier = counted.verifiers[number]
        least, batch = alone(verifier, method, counted.shapes[number, method])
        floor += images * least
        kind = type(verifier).__name__
        spent = in_audit[number, method]
        rows.append((f"{kind}.{method}", images, batch, 1000 * least, images * least, spent))
    print("\n| call | images | best batch | ms an image alone | s alone | s in the audit |\n" + "| --- " * 6 + "|")
    for name, images, batch, each, seconds, spent in sorted(rows, key=lambda row: -row[4]):
        print(f"| {name} | {images} | {batch} | {each:.2f} | {seconds:.1f} | {spent:.1f} |")
    print(f"\nwall {wall:.1f} s, floor {floor:.1f} s, ratio {wall / floor:.2f}")


if __name__ == "__main__":
    main()
