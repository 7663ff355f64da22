"""A file is there whole or not at all, and what a killed process left behind does not stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, sixpixels
from tests.risk.runs import Told, write
from toolkit.errors import InputError
from toolkit.files import atomic_write, checked_path, inside, write_bytes

WRITER = """
import sys, time
from pathlib import Path
from toolkit.files import atomic_write
with atomic_write(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def start_writing(path: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of a file."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_the_next_write_removes_what_a_killed_process_left_and_not_what_a_living_one_writes(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [Told("square", "query", "mean3", dodged=4)])
    killed, living = start_writing(run / "report.html"), start_writing(run / "report.md")
    try:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        parts = sorted(path.name for path in run.glob(".*.part"))
        assert [name.split("-")[0].rpartition(".")[0] for name in parts] == [".report.html", ".report.md"]
        assert sixpixels("report", run, "--format", "sarif").returncode == 0
        (left,) = run.glob(".*.part")
        assert left.name == parts[1]
        assert left.read_bytes() == b"half"
    finally:
        living.kill()
        living.wait()
    write_bytes(run / "other", b"whole")
    assert not list(run.glob(".*.part"))
    assert not (run / "report.md").exists()


def test_an_earlier_process_with_our_number_is_not_us(tmp_path: Path) -> None:
    """In a container that was started again, every process may have the number of one that was killed."""
    with atomic_write(tmp_path / "a") as stream:
        (mine,) = tmp_path.glob(".*.part")
        head, _, token = mine.name.removesuffix(".part").rpartition("-")
        earlier = tmp_path / f"{head}-{token[::-1]}.part"
        other = tmp_path / ".mine.part"
        for path in (earlier, other):
            path.write_bytes(b"")
        write_bytes(tmp_path / "b", b"")
        assert not earlier.exists()
        assert mine.exists()
        assert other.exists(), "not one of ours"
        stream.write(b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize("text", ["a\0b", "a" * 256, "a/" * 2000, "\ud800", "é" * 128])
def test_a_path_that_no_file_system_takes_is_refused_before_it_is_looked_for(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"list:3: .* is not a valid path"):
        checked_path(text, "list:3")
    with pytest.raises(InputError, match="is not a valid path"):
        inside(tmp_path, text, "list:3")
    assert checked_path("é" * 127, "list:3") == Path("é" * 127)
