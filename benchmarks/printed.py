"""Prints docs/benchmarks.md anew: runs every benchmark, and puts its command and its output into the page.

python benchmarks/printed.py --lfw LFW --dlib dlib_resnet.onnx --work build/printed

The page has a place for each benchmark, between `<!-- printed: NAME -->` and `<!-- end -->`; words around it stay. Each
output goes into the folder `work` first, with the machine and the revision of the code, so that a run which was stopped
continues, and places whose benchmark has not run yet keep what they have. All of it takes about three hours on two
cores, which should have nothing else to do. `--only` runs some of them. Those that need PyTorch take the Python that
`--torch` names, and are left out without it. Needs the dev extra.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolkit.files import write_bytes
from toolkit.threads import cores

PAGE = ROOT / "docs" / "benchmarks.md"
_COLUMNS = 100
# What the numbers depend on.
_CODE = ("toolkit", "models", "profiles", "benchmarks", "cli.py", "constraints.txt")
# Lines of TensorFlow and of progress bars are no result.
_NOISE = re.compile(r"^(WARNING|I0000|E0000|W0000|\d{4}-\d\d-\d\d .*: [IWE] )")


@dataclass(frozen=True)
class Benchmark:
    """Commands whose outputs stand in one place of the page.

    Attributes:
        commands: the words after `python`, with the names of data in braces.
        last: how many lines of each output are kept; 0 for all.
        torch: whether it needs PyTorch.
    """

    commands: tuple[str, ...]
    last: int = 0
    torch: bool = False


_FACES = "facenet-mini --pairs {lfw}"
_NEAR = "benchmarks/optimality.py {model} --pairs {{lfw}} --limit 12 --norms {norms}"
BENCHMARKS = {
    "engine": Benchmark(("benchmarks/engine.py --faces {lfw} --pairs 1000 --repeats 1",)),
    "gradients": Benchmark(("benchmarks/engine.py --faces {lfw} --pairs 100 --repeats 1 --gradients",)),
    "audit": Benchmark(
        tuple(f"benchmarks/audit.py {_FACES} --folds 7,8 --limit {limit} --suite quick" for limit in (10, 40))
    ),
    "peer": Benchmark(tuple(f"benchmarks/peer.py {_FACES} --limit 20{more}" for more in ("", " --our-steps 25"))),
    "kills": Benchmark(("benchmarks/kills.py --kills 200",), last=1),
    "cluster": Benchmark((f"benchmarks/cluster.py {_FACES} --limit 32 --megabits 0,20,5",)),
    "scale": Benchmark(
        ("benchmarks/scale.py --pairs 1000,10000,100000", "benchmarks/scale.py --pairs 1000,10000 --side 160")
    ),
    "operators": Benchmark(("benchmarks/operators.py",), last=2),
    "attacks": Benchmark(("benchmarks/attacks.py --pairs {lfw}",)),
    "optimality": Benchmark(
        tuple(_NEAR.format(model=model, norms="l2,linf") for model in ("facenet-mini", "{{dlib}}")), torch=True
    ),
    "sparse": Benchmark(
        (_NEAR.format(model="facenet-mini", norms="l1,l0") + " --libraries ours,foolbox,adversarial-library",),
        torch=True,
    ),
    "reach": Benchmark(
        (
            f"benchmarks/reach.py {_FACES} --folds 7,8 --limit 16",
            f"benchmarks/reach.py {_FACES} --folds 7,8 --limit 8 --profiles detector --attacks fmn",
        )
    ),
    "decisions": Benchmark(
        tuple(
            f"benchmarks/reach.py {_FACES} --folds 7,8 --limit 6 --profiles none --attacks cgba,hop-skip-jump "
            f"--set cgba.budget={budget} --set hop-skip-jump.budget={budget}"
            for budget in (1000, 5000)
        )
    ),
    "remote": Benchmark(("benchmarks/remote.py --rounds 3 --pairs 8 --ways grpc-1 grpc-4",)),
    "hardened": Benchmark(
        (
            "benchmarks/hardened_cost.py facenet-mini --profiles mean3 --batch 32 --threads 1",
            "benchmarks/hardened_cost.py facenet-noise --profiles vote45 --threads 1",
        )
    ),
}


def machine() -> str:
    """The processor, the day, and the revision of the code."""
    model = platform.processor() or platform.machine()
    known = Path("/proc/cpuinfo")
    if known.exists():
        found = re.search(r"model name\s*:\s*(.+)", known.read_text())
        model = found[1].strip() if found else model
    changed = ", changed" if _git("status", "--porcelain", "--", *_CODE) else ""
    revision = _git("rev-parse", "--short", "HEAD") + changed
    day = f"{datetime.now().astimezone():%Y-%m-%d}"
    return f"{cores()} cores of {model}, Python {platform.python_version()}, {day}, revision {revision}"


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - fixed


def run(benchmark: Benchmark, data: dict[str, str], python: str) -> str:
    """Run the commands of a benchmark, and return what stands in the page.

    Raises:
        SystemExit: a command failed.
    """
    blocks = []
    places = {name: Path(value).name for name, value in data.items()}
    for command in benchmark.commands:
        print(f"python {command.format(**places)}", file=sys.stderr, flush=True)
        environment = os.environ | {"COLUMNS": str(_COLUMNS), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
        done = subprocess.run(  # noqa: S603 - a command of the list above
            [python, *command.format(**data).split()], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{command}: ended with status {done.returncode}")
        lines = [line.rstrip() for line in done.stdout.strip().splitlines() if not _NOISE.match(line)]
        blocks.append("\n".join([f"$ python {command.format(**places)}", *lines[-benchmark.last :]]))
    return "```text\n" + "\n\n".join([*blocks, machine()]) + "\n```"


def replaced(page: str, name: str, block: str) -> str:
    """Put a block into its place in the page.

    Raises:
        ValueError: the page has no such place, or several.
    """
    place = re.compile(rf"(<!-- printed: {re.escape(name)} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    if len(place.findall(page)) != 1:
        raise ValueError(f"the page must have one place for {name}")
    return place.sub(lambda found: found[1] + block + found[2], page)


def assemble(work: Path, names: Iterable[str]) -> None:
    """Put all outputs that the folder has into the page."""
    page = PAGE.read_text()
    for name in names:
        if (work / f"{name}.txt").exists():
            page = replaced(page, name, (work / f"{name}.txt").read_text())
    write_bytes(PAGE, page.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", required=True)
    parser.add_argument("--dlib", required=True, help="dlib's verifier as an ONNX file")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(BENCHMARKS))
    parser.add_argument("--torch", help="a Python that has this toolkit, PyTorch and adversarial-library")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    data = {"lfw": str(Path(args.lfw).resolve()), "dlib": str(Path(args.dlib).resolve())}
    for name in args.only.split(","):
        benchmark, output = BENCHMARKS[name], args.work / f"{name}.txt"
        if benchmark.torch and not args.torch:
            print(f"{name}: left out without --torch", file=sys.stderr)
        elif not output.exists():
            python = args.torch if benchmark.torch else sys.executable
            write_bytes(output, run(benchmark, data, python).encode())
            assemble(args.work, [name])
    assemble(args.work, BENCHMARKS)


if __name__ == "__main__":
    main()
