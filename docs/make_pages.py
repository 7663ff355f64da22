"""Prints what benchmarks and audits print into the pages of the documentation anew.

python docs/make_pages.py --shared ../shared --work build/pages

The folder `shared` has `lfw` and `verifiers/dlib_resnet.onnx`. A page has places between `<!-- printed: NAME -->` and
`<!-- end -->`; words around them stay. Each output goes into the folder `work` first, so that a run which was stopped
continues, and a place keeps what it has until its commands have run. All of it takes hours on two cores, which should
have nothing else to do. `--only` runs some of the places. Those that need PyTorch are left out unless
`--torch` names a Python that has it. Needs the dev extra.
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

from toolkit.files import write_bytes
from toolkit.threads import cores

ROOT = Path(__file__).resolve().parents[1]
# Benchmarks print wider tables than reports.
_WIDE, _NARROW = "120", "80"
# Lines of TensorFlow are no result.
_NOISE = re.compile(r"^(WARNING|[IEW]0000|\d{4}-\d\d-\d\d .*: [IWE] )")
# What the numbers depend on.
_CODE = ("toolkit", "models", "profiles", "benchmarks", "cli.py", "constraints.txt")


@dataclass(frozen=True)
class Place:
    """What stands in one place of each of some pages.

    Attributes:
        pages: the pages, from the project's folder.
        commands: `sixpixels` or a program of this project, with its arguments. Data are in ../shared, as for a reader
            who is in the project's folder.
        last: how many lines of each output are kept; 0 for all.
        torch: whether it needs PyTorch.
        part: for a part of the last output, the beginnings of its first line and of the first line after it, or nothing
            for the end of the output. The page names the commands itself.
        fenced: whether the output is plain text, and not the page's own language.
    """

    pages: tuple[str, ...]
    commands: tuple[str, ...]
    last: int = 0
    torch: bool = False
    part: tuple[str, str] | None = None
    fenced: bool = True


def _benchmark(*commands: str, last: int = 0, torch: bool = False) -> Place:
    return Place(("docs/benchmarks.md",), commands, last, torch)


_DLIB = "../shared/verifiers/dlib_resnet.onnx"
_FACES = "facenet-mini --pairs ../shared/lfw"
_NEAR = "benchmarks/optimality.py {} --pairs ../shared/lfw --limit 12 --norms {}"
_CERTIFIED = "benchmarks/certified.py {} --pairs ../shared/lfw --limit 200 --calls {} --work build/certified"
_TESTED = "--pairs ../shared/lfw --folds 7,8"
PLACES = {
    "engine": _benchmark("benchmarks/engine.py --faces ../shared/lfw --pairs 1000 --repeats 1"),
    "gradients": _benchmark("benchmarks/engine.py --faces ../shared/lfw --pairs 100 --repeats 1 --gradients"),
    "whole-audits": _benchmark(
        *(f"benchmarks/audit.py {_FACES} --folds 7,8 --limit {limit} --suite quick" for limit in (10, 40))
    ),
    "thousand": _benchmark(f"benchmarks/audit.py {_FACES} --folds 7,8 --limit 1000 --suite quick"),
    "peer": _benchmark(*(f"benchmarks/peer.py {_FACES} --limit 20{more}" for more in ("", " --our-steps 25"))),
    "kills": _benchmark("benchmarks/kills.py --kills 200", last=1),
    "cluster": _benchmark(f"benchmarks/cluster.py {_FACES} --limit 32 --megabits 0,20,5"),
    "scale": _benchmark(
        "benchmarks/scale.py --pairs 1000,10000,100000", "benchmarks/scale.py --pairs 1000,10000 --side 160"
    ),
    "hardened": _benchmark(
        "benchmarks/hardened_cost.py facenet-mini --profiles mean3 --batch 32 --threads 1",
        "benchmarks/hardened_cost.py facenet-noise --profiles vote45 --threads 1",
    ),
    "operators": _benchmark("benchmarks/operators.py", last=1),
    "attacks": _benchmark("benchmarks/attacks.py --pairs ../shared/lfw"),
    "optimality": _benchmark(*(_NEAR.format(model, "l2,linf") for model in ("facenet-mini", _DLIB)), torch=True),
    "sparse": _benchmark(
        _NEAR.format("facenet-mini", "l1,l0 --libraries ours,foolbox,adversarial-library"), torch=True
    ),
    "reach": _benchmark(f"benchmarks/reach.py {_FACES} --folds 7,8 --limit 16"),
    "noticed": _benchmark(f"benchmarks/reach.py {_FACES} --folds 7,8 --limit 16 --profiles mean3,detector"),
    "decisions": _benchmark(
        *(
            f"benchmarks/reach.py {_FACES} --folds 7,8 --limit 6 --profiles none --attacks cgba,hop-skip-jump "
            f"--set cgba.budget={budget} --set hop-skip-jump.budget={budget}"
            for budget in (1000, 5000)
        )
    ),
    "remote": _benchmark("benchmarks/remote.py --rounds 3 --pairs 8 --ways grpc-1 grpc-4"),
    "report": Place(
        ("README.md",),
        (f"sixpixels audit {_TESTED} --limit 20 --run runs/lfw",),
        part=("╭", "attack success: impersonation"),
    ),
    "worn": Place(
        ("docs/audit.md",),
        (f"sixpixels audit {_TESTED} --limit 60 --profiles none,mean3 --attacks universal,glasses",),
        part=("attack success: dodging", "n: eligible"),
    ),
    "certified": Place(
        ("docs/audit.md",),
        (f"sixpixels audit facenet-mini {_TESTED} --limit 20 --attacks deepfool --profiles none --certify 0.1,0.25",),
        part=("certified, %", "caveats"),
    ),
    "sweep": Place(
        ("docs/audit.md",),
        (f"sixpixels sweep facenet-mini {_TESTED} --limit 100 --attacks deepfool --profiles none,mean3",),
        part=("target", ""),
    ),
    "paper": Place(
        ("docs/audit.md",),
        (f"sixpixels audit --suite paper {_TESTED} --profiles none,mean3,n2c --run runs/paper",),
        part=("╭", ""),
    ),
    "unknowing": Place(
        ("docs/method.md",),
        (f"benchmarks/unknowing.py {_FACES} --folds 7,8 --limit 30",),
        part=("dodging", ""),
        fenced=False,
    ),
    "calibrated": Place(
        ("docs/harden.md",),
        (
            "sixpixels harden facenet-mini --profile balanced -o hardened.onnx",
            f"sixpixels calibrate hardened.onnx --fmr 1e-2 {_TESTED}",
        ),
        part=("verifier", ""),
    ),
    "quantized": Place(
        ("docs/harden.md",),
        (f"sixpixels quantize facenet-mini --to int8 -o int8.onnx {_TESTED} --limit 600 --max-flips 30",),
        part=("written", ""),
    ),
    "smoothed": Place(
        ("docs/smoothing.md",),
        (_CERTIFIED.format("facenet-mini", 8),),
        part=("| | FNMR %", "smoothed:"),
        fenced=False,
    ),
    "voting": Place(
        ("docs/smoothing.md",),
        (_CERTIFIED.format("facenet-noise --profile vote45", 4),),
        part=("| | FNMR %", "vote45:"),
        fenced=False,
    ),
    "holding": Place(
        ("README.md", "docs/smoothing.md"),
        ("benchmarks/holding.py --pairs ../shared/lfw --work build/holding",),
        part=("| verifier, profile", ""),
        fenced=False,
    ),
    "guesses": Place(
        ("docs/manifests.md",),
        (f"benchmarks/guess.py --pairs ../shared/lfw --dlib {_DLIB}",),
        part=("facenet-mini", ""),
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
    used = f"{cores()} core" + "s" * (cores() > 1)
    day = f"{datetime.now().astimezone():%Y-%m-%d}"
    return f"{used} of {model}, Python {platform.python_version()}, {day}, revision {revision}"


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def output_of(command: str, python: str, beside: Path, columns: str) -> list[str]:
    """Run one command in a new folder beside `../shared`, and return the lines that it prints.

    Raises:
        SystemExit: the command failed.
    """
    program, *arguments = command.split()
    path = ROOT / ("cli.py" if program == "sixpixels" else program)
    environment = os.environ | {"COLUMNS": columns, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    print(command, file=sys.stderr, flush=True)
    done = subprocess.run(
        [python, str(path), *arguments], cwd=beside, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{command}: ended with status {done.returncode}")
    return [line.rstrip() for line in done.stdout.strip().splitlines() if not _NOISE.match(line)]


def block_of(place: Place, python: str, beside: Path) -> str:
    """Run the commands of a place, and return what stands there."""
    if place.part is not None:
        *_, lines = [output_of(command, python, beside, _NARROW) for command in place.commands]
        part = part_of(lines, *place.part)
        return "\n".join(["```text", *part, "```"] if place.fenced else part)
    blocks = []
    for command in place.commands:
        lines = output_of(command, python, beside, _WIDE)
        blocks.append("\n".join([f"$ python {command}", *lines[-place.last :]]))
    return "\n".join(["```text", "\n\n".join([*blocks, machine()]), "```"])


def part_of(lines: list[str], first: str, after: str) -> list[str]:
    """The lines from the first that begins with `first` to before the next that begins with `after`, if that is given.

    Raises:
        ValueError: there is no such line.
    """
    start = next((i for i, line in enumerate(lines) if line.startswith(first)), None)
    if start is None:
        raise ValueError(f"no line begins with {first!r}")
    ends = [i for i in range(start + 1, len(lines)) if lines[i].startswith(after)] if after else [len(lines)]
    if not ends:
        raise ValueError(f"no line begins with {after!r}")
    part = lines[start : ends[0]]
    while part and not part[-1]:
        part.pop()
    return part


def replaced(page: str, name: str, block: str) -> str:
    """Put a block into its place in a page.

    Raises:
        ValueError: the page has no such place, or several.
    """
    place = re.compile(rf"(<!-- printed: {re.escape(name)} -->\n)(?:(?!<!-- ).)*(<!-- end -->)", re.DOTALL)
    if len(place.findall(page)) != 1:
        raise ValueError(f"the page must have one place for {name}")
    return place.sub(lambda found: f"{found[1]}{block}\n{found[2]}", page)


def assemble(work: Path, names: Iterable[str], root: Path = ROOT) -> None:
    """Put all outputs that the folder `work` has into the pages."""
    for name in names:
        if (work / f"{name}.txt").exists():
            for path in (root / page for page in PLACES[name].pages):
                write_bytes(path, replaced(path.read_text(), name, (work / f"{name}.txt").read_text()).encode())


def main() -> None:
    """Run the commands whose outputs the folder `work` lacks, and put all outputs into the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PLACES))
    parser.add_argument("--torch", help="a Python that has this toolkit, PyTorch and adversarial-library")
    args = parser.parse_args()
    beside = args.work / "project"
    beside.mkdir(parents=True, exist_ok=True)
    if not (args.work / "shared").exists():
        (args.work / "shared").symlink_to(args.shared.resolve())
    for name in args.only.split(","):
        place, output = PLACES[name], args.work / f"{name}.txt"
        if place.torch and not args.torch:
            print(f"{name}: left out without --torch", file=sys.stderr)
        elif not output.exists():
            python = args.torch if place.torch else sys.executable
            write_bytes(output, block_of(place, python, beside).encode())
            assemble(args.work, [name])
    assemble(args.work, PLACES)


if __name__ == "__main__":
    main()
