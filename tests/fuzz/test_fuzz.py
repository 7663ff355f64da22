"""The fuzzer itself: it notices every kind of fault, keeps its input, and goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Some inputs of each target fail, but not the first one of a process; the name says how.
TARGETS = """
import ctypes, os, time
from pathlib import Path
from toolkit.errors import InputError

def make(rng):
    return rng.integers(0, 256, 40).astype("uint8").tobytes()

def counted(fault):
    number = [0]
    def run(content, folder):
        assert len(content) == 40
        (folder / "mine").write_bytes(content)
        number[0] += 1
        if number[0] > 1 and content[1] < 10:
            fault(folder)
        if content[0] % 2:
            raise InputError("refused")
    return run

def raises(folder): raise KeyError("x")
def dies(folder): ctypes.string_at(1)
def leaves(folder): raise SystemExit(0)
def hangs(folder): time.sleep(60)
def loops(folder):
    while True: pass
def writes(folder): (folder.parent.parent / "outside").write_text("x")
def relative(folder): os.system("echo x > here")
def fills(folder): bytearray(3 << 30)
def nothing(folder): pass

FAULTS = (raises, dies, leaves, hangs, loops, writes, relative, fills)
TARGETS = [(f.__name__, make, counted(f)) for f in (*FAULTS, nothing)]
"""
FAULTS = {
    "raises": "crashed", "dies": "crashed", "leaves": "crashed", "hangs": "stuck", "loops": "stuck",
    "writes": "outside", "relative": "outside", "fills": "memory",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "own" / "fuzzed"
    folder.mkdir(parents=True)
    (folder / "some_targets.py").write_text(TARGETS)
    return folder


def command(folder: Path, *more: object) -> list[str]:
    given = ["--folder", folder, "--output", folder / "kept", "--workers", 2, "--seconds", 1, *more]
    return [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), *map(str, given)]


def rows(text: str) -> dict[str, list[int]]:
    """The numbers of the table, by target: inputs, accepted, refused, crashed, stuck, outside, memory."""
    found = re.findall(r"^(\w+)((?: +\d+){8})$", text, re.MULTILINE)
    return {name: [int(number) for number in numbers.split()][:-1] for name, numbers in found}


def test_every_kind_of_fault_is_counted_kept_and_survived(folder: Path) -> None:
    done = subprocess.run(command(folder, "--inputs", 900), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    kinds = ("crashed", "stuck", "outside", "memory")
    for name, (inputs, accepted, refused, *faults) in rows(done.stdout).items():
        assert inputs == accepted + refused + sum(faults)
        if name in FAULTS:
            assert inputs == 100
            assert faults[kinds.index(FAULTS[name])] >= 1, name
            kept = [path for path in (folder / "kept" / name).iterdir() if path.suffix != ".txt"]
            assert kept
            assert {(path.name.split("-")[0], len(path.read_bytes())) for path in kept} == {(FAULTS[name], 40)}
            assert "of seed 0" in kept[0].with_name(f"{kept[0].name}.txt").read_text()
    assert set(rows(done.stdout)) == {*FAULTS, "nothing", "together"}
    assert "SIGSEGV" in "".join(path.read_text() for path in (folder / "kept" / "dies").glob("*.txt"))
    assert rows(done.stdout)["nothing"][3:] == [0] * 4


def test_every_target_gets_the_same_time(folder: Path) -> None:
    slow = "def slow(content, folder): time.sleep(0.01)\ndef quick(content, folder): pass\n"
    targets = "TARGETS = [('slow', make, slow), ('quick', make, quick)]\n"
    (folder / "some_targets.py").write_text(TARGETS + slow + targets)
    done = subprocess.run(command(folder, "--inputs", 3000), capture_output=True, text=True, check=True)
    found = rows(done.stdout)
    assert found["together"][0] == found["slow"][0] + found["quick"][0] == 3000
    assert found["quick"][0] > 2 * found["slow"][0] >= 200


def test_a_run_that_is_stopped_goes_on_where_it_was(folder: Path) -> None:
    alone = ["--targets", "nothing", "--inputs", 200_000]
    running = subprocess.Popen(command(folder, *alone), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(4)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert "give the command again" in errors
    first = rows(output)["nothing"]
    assert 0 < first[0] < 200_000
    state = json.loads((folder / "kept" / "seed-0.json").read_text())["nothing"]
    assert sum(state["counts"].values()) == first[0] == 100 * len(state["done"])
    enough = ["--targets", "nothing", "--inputs", first[0] + 200]
    again = subprocess.run(command(folder, *enough), capture_output=True, text=True, check=True)
    assert rows(again.stdout)["nothing"][0] == first[0] + 200
    fresh = [*enough, "--output", folder / "another"]
    whole = subprocess.run(command(folder, *fresh), capture_output=True, text=True, check=True)
    assert rows(whole.stdout)["nothing"] == rows(again.stdout)["nothing"], "the same inputs, with the same ends"


def test_without_faults_it_ends_well_and_knows_its_targets() -> None:
    one = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--targets", "htp"]
    done = subprocess.run(one, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no target htp; there are" in done.stderr
