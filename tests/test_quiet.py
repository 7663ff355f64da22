"""Standard error is for errors: no library writes on it, an error is one line, and a switch shows everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, process, refused, sixpixels
from toolkit.quiet import DEBUG, silenced

NOISE = b"from native code\n"


def test_a_command_with_gradients_writes_nothing_on_standard_error(work: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    asked = ["audit", work / "linear.onnx", "--pairs", work / "people", "--run", work / "run", "--limit", 4]
    done = process(*asked, "--attacks", "deepfool", "--profiles", "none", "--provider", "cpu", env=bare)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_loading_tensorflow_is_silent_even_where_it_is_set_to_write() -> None:
    # With this level TensorFlow's native code writes on every machine; without it, on some.
    code = "from toolkit.quiet import import_tensorflow; import_tensorflow()"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_native_lines_are_dropped_unless_something_fails(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DEBUG, raising=False)
    with silenced():
        os.write(2, NOISE)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"

    def fail() -> None:
        with silenced():
            os.write(2, NOISE)
            raise ImportError("broken")

    with pytest.raises(ImportError, match="broken"):
        fail()
    assert capfd.readouterr().err == NOISE.decode()
    monkeypatch.setenv(DEBUG, "1")
    with silenced():
        os.write(2, NOISE)
    assert capfd.readouterr().err == NOISE.decode()


def test_tensorflow_has_the_same_number_of_threads_on_every_machine() -> None:
    settle = "from toolkit.quiet import settle_tensorflow; settle_tensorflow(); "
    code = settle + "import os; print(os.environ['TF_NUM_INTRAOP_THREADS'])"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    for given, threads in (({}, "1"), ({"TF_NUM_INTRAOP_THREADS": "2"}, "2")):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=bare | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == threads


@pytest.mark.parametrize("switch", [["--debug"], []], ids=["option", "variable"])
def test_a_switch_shows_the_traceback_before_the_line(tmp_path: Path, switch: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != DEBUG}
    command = ("gate", tmp_path / "nowhere")
    refused(sixpixels(*command, env=environment), "cannot be read")
    done = sixpixels(*switch, *command, env=environment if switch else environment | {DEBUG: "1"})
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "read_run" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("sixpixels: ")


def test_a_fault_of_ours_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("one\nand two")

    monkeypatch.setattr("toolkit.doctor.diagnose", broken)
    refused(sixpixels("doctor"), rf"internal error \(RuntimeError: one and two\).*{DEBUG}=1")
