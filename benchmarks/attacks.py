"""Our attacks beside Foolbox's and ART's: same model, pairs and budget, one library after the other, on one thread.

python benchmarks/attacks.py --pairs LFW -o attacks.json

Only libraries that have a bar for an attack run it, unless `--all` asks for the others: ART's Carlini-Wagner takes many
minutes.

`--model quarter` is Inception-ResNet-v1 at quarter width with random weights, `--model facenet-mini` the shipped one.
Seconds are CPU seconds per pair; what a first call compiles is left out, the same way for all: a few steps come first,
and runs of up to half a minute count by the shorter of two. `ours` stops at floats as the other libraries do; `ours8`
goes on to 8-bit probes, as an audit does. Needs the dev extra.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

# How many times as long as ours each library's better mode is to take.
BARS: dict[str, dict[str, float]] = {
    "fgsm": {"foolbox": 25, "art": 1.2},
    "deepfool": {"foolbox": 4, "art": 15},
    "pgd": {"foolbox": 10, "art": 12},
    "carlini-wagner": {"foolbox": 2},
    "gaussian": {"foolbox": 1.8},
    "fmn": {"foolbox": 2},
    "fmn-linf": {"foolbox": 2},
    "fmn-l1": {"foolbox": 2},
    "ddn": {"foolbox": 2},
    "apgd": {"art": 2},
}
LARGEST_NORM_RATIO = 1.02
# The order of each attack's norm; 2 for the others.
ORDERS = {"fgsm": np.inf, "pgd": np.inf, "apgd": np.inf, "fmn-linf": np.inf, "fmn-l1": 1}
MODULES = {
    "ours": ("ours", "Ours"),
    "ours8": ("ours", "OursTo8Bit"),
    "foolbox": ("with_foolbox", "Foolbox"),
    "art": ("with_art", "Art"),
}
MODES = ("batched", "singly")
_LONG = 30.0
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclass(frozen=True)
class Row:
    """One attack by one library in one mode; `failed` says why there are no numbers."""

    attack: str
    library: str
    mode: str
    warm_up: float = 0
    seconds: float = 0
    forward: float = 0
    backward: float = 0
    success: int = 0
    norm: float | None = None
    failed: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="quarter")
    parser.add_argument("--pairs", type=Path, help="LFW or a list of pairs; by default the embedded ones")
    parser.add_argument("--count", type=int, default=16, help="pairs, half of them genuine")
    parser.add_argument("--attacks", default=",".join(BARS))
    parser.add_argument("--libraries", default=",".join(MODULES))
    parser.add_argument("--all", action="store_true", help="also run what no bar is set for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps of each, to see that it runs")
    parser.add_argument("-o", "--output", type=Path, help="JSON")
    parser.add_argument("--worker", nargs=2, metavar=("LIBRARY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args, args.worker[0], Path(args.worker[1]))
        return
    # The threads of libraries are set before they are loaded.
    os.environ.update(ONE_THREAD)
    from attack_libraries.problem import make_problem
    from toolkit.faces.pairs import embedded_pairs

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_problem(args.model, args.pairs or embedded_pairs(), args.count, folder)
        for library in args.libraries.split(","):
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", library, name]
            subprocess.run(command, check=True, env=os.environ | ONE_THREAD)  # noqa: S603 - this very program
        rows = judge(args, folder)
    report = {
        "model": args.model,
        "pairs": args.count,
        "quick": args.quick,
        "rows": [asdict(row) for row in rows],
        "bars": compare(rows),
    }
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    show(report, rows)


def work(args: argparse.Namespace, library: str, folder: Path) -> None:
    """Attack with one library, in both modes; leaves results and numbers in `folder`."""
    from attack_libraries.problem import SMALL, Budget, read_problem

    budget = SMALL if args.quick else Budget()
    problem = read_problem(args.model, folder, args.seed)
    module, name = MODULES[library]
    attacker: Any = getattr(import_module(f"attack_libraries.{module}"), name)(problem)
    everyone = len(problem.probes)
    for attack in args.attacks.split(","):
        if not (args.all or library.startswith("ours") or library in BARS.get(attack, {})):
            continue
        for mode, size in zip(MODES, (everyone, 1), strict=True):
            parts = [problem.some(slice(i, i + size)) for i in range(0, everyone, size)]
            done: dict[str, Any] = {}
            try:
                start = time.process_time()
                if attacker.attack(attack, parts[0], SMALL) is None:
                    continue
                done["warm_up"] = time.process_time() - start
                forward, backward = attacker.forward, attacker.backward
                start = time.process_time()
                images = [attacker.attack(attack, part, budget) for part in parts]
                seconds = time.process_time() - start
                done["forward"] = (attacker.forward - forward) / everyone
                done["backward"] = (attacker.backward - backward) / everyone
                if seconds < _LONG:
                    start = time.process_time()
                    for part in parts:
                        attacker.attack(attack, part, budget)
                    seconds = min(seconds, time.process_time() - start)
                done["seconds"] = seconds / everyone
                np.save(folder / f"{library}.{attack}.{mode}.npy", np.concatenate(images))
            except Exception as error:  # noqa: BLE001 - whatever a library raises is its result
                done = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
            row = Row(attack, library, mode, **done)
            (folder / f"{library}.{attack}.{mode}.json").write_text(json.dumps(asdict(row)))


def judge(args: argparse.Namespace, folder: Path) -> list[Row]:
    """All rows, with successes by one and the same forward pass, and norms on those that an attack's rows share."""
    from attack_libraries.problem import read_problem
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    problem = read_problem(args.model, folder, args.seed)
    verifier = TensorFlowVerifier(problem.manifest, network=problem.network)
    rows = []
    for attack in args.attacks.split(","):
        found = [Row(**json.loads(path.read_text())) for path in folder.glob(f"*.{attack}.*.json")]
        found.sort(key=lambda row: (list(MODULES).index(row.library), MODES.index(row.mode)))
        ran = {row: np.load(folder / f"{row.library}.{attack}.{row.mode}.npy") for row in found if not row.failed}
        flips = {row: problem.flips(verifier, images) for row, images in ran.items()}
        shared = np.all(list(flips.values()), axis=0)
        for row in found:
            if row.failed:
                rows.append(row)
                continue
            delta = (ran[row] - problem.probes).reshape(len(problem.probes), -1)
            norms = np.linalg.norm(delta, ORDERS.get(attack, 2), axis=1)
            norm = float(np.median(norms[shared])) if shared.any() else None
            rows.append(Row(**asdict(row) | {"success": int(flips[row].sum()), "norm": norm}))
    return rows


def compare(rows: list[Row]) -> list[dict[str, Any]]:
    """Each bar, and what was reached: better mode beside better mode."""
    bars = []
    for attack, libraries in BARS.items():
        ours = [row for row in rows if (row.attack, row.library) == (attack, "ours") and not row.failed]
        for library, bar in libraries.items():
            theirs = [row for row in rows if (row.attack, row.library) == (attack, library) and not row.failed]
            if not ours or not theirs:
                continue
            own, other = (min(group, key=lambda row: row.seconds) for group in (ours, theirs))
            ratio = other.seconds / own.seconds
            nearest = min((row.norm for row in theirs if row.norm is not None), default=None)
            norm_ratio = own.norm / nearest if own.norm is not None and nearest else None
            as_good = own.success >= max(row.success for row in theirs)
            near = norm_ratio is None or norm_ratio <= LARGEST_NORM_RATIO
            bars.append(
                {
                    "attack": attack,
                    "library": library,
                    "bar": bar,
                    "ratio": ratio,
                    "norm_ratio": norm_ratio,
                    "success_as_good": as_good,
                    "passed": ratio >= bar and as_good and near,
                }
            )
    return bars


def show(report: dict[str, Any], rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=80)
    n = report["pairs"]
    table = Table(title=f"{report['model']}, {n} pairs, per pair, one thread", box=None)
    for column in ("attack", "library", "mode", "warm-up s", "CPU s", "forward", "back", "success", "norm"):
        table.add_column(column, justify="left" if column in {"attack", "library", "mode"} else "right")
    previous = ""
    for row in rows:
        attack, previous = "" if row.attack == previous else row.attack, row.attack
        if row.failed:
            table.add_row(attack, row.library, row.mode, "", "fails")
            continue
        numbers = (f"{row.warm_up:.2f}", f"{row.seconds:.4f}", f"{row.forward:.1f}", f"{row.backward:.1f}")
        norm = "-" if row.norm is None else f"{row.norm:.4f}"
        table.add_row(attack, row.library, row.mode, *numbers, f"{row.success}/{n}", norm)
    console.print(table)
    for row in rows:
        if row.failed:
            console.print(f"{row.attack}, {row.library}, {row.mode}: {row.failed}", markup=False)
    bars = Table(title="\nBetter mode beside better mode", box=None)
    for column in ("attack", "library", "bar", "reached", "norm, times theirs", "success", ""):
        bars.add_column(column, justify="left" if column in {"attack", "library"} else "right")
    for bar in report["bars"]:
        bars.add_row(
            bar["attack"],
            bar["library"],
            f"{bar['bar']:g} x",
            f"{bar['ratio']:.1f} x",
            "-" if bar["norm_ratio"] is None else f"{bar['norm_ratio']:.3f}",
            "as good" if bar["success_as_good"] else "worse",
            "pass" if bar["passed"] else "FAIL",
        )
    console.print(bars)


if __name__ == "__main__":
    main()
