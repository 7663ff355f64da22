"""Trials: a crash, a hang or a flood of memory in native code is an error of one line, and costs little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import ROOT
from tests.models import write_linear
from toolkit.errors import InputError, UnavailableError
from toolkit.verifiers import trial
from toolkit.verifiers.manifest import find_manifest, read_manifest
from toolkit.verifiers.runtime import read_model
from toolkit.verifiers.trial import Allowance, run_apart, shipped_hashes, tried_environment, try_once

SMALL = Allowance(20, 0, 256 << 20, 0)


def echo(parameters: dict[str, Any], content: bytes) -> bytes:
    return parameters["word"].encode() + content


def crash(_: dict[str, Any], __: bytes) -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def hang(_: dict[str, Any], __: bytes) -> bytes:
    time.sleep(600)
    return b""


def flood(_: dict[str, Any], __: bytes) -> bytes:
    return bytes(1 << 30)


def fail(parameters: dict[str, Any], _: bytes) -> bytes:
    raise {"input": InputError, "missing": UnavailableError, "other": KeyError}[parameters["kind"]]("word")


def say_folder(_: dict[str, Any], __: bytes) -> bytes:
    return str(Path.cwd()).encode()


def test_a_trial_gives_back_what_the_function_returns() -> None:
    assert run_apart(echo, {"word": "a"}, b"b", "file", SMALL) == b"ab"


@pytest.mark.parametrize(("work", "message"), [(crash, r"file: .*died \(signal 11\)"), (flood, r"file: .*died")])
def test_death_is_one_line(work: trial.Work, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_apart(work, {}, b"", "file", SMALL)
    assert run_apart(echo, {"word": "still"}, b"", "file", SMALL) == b"still"


def test_a_hang_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trial.SECONDS, "0.3")
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"file: .*longer than 0 seconds.*SIXPIXELS_TRIAL_SECONDS"):
        run_apart(hang, {}, b"", "file", SMALL)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [("input", InputError, "^word$"), ("missing", UnavailableError, "^word$"), ("other", InputError, "KeyError")],
)
def test_errors_keep_their_family(kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_apart(fail, {"kind": kind}, b"", "file", SMALL)


def test_each_file_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest(write_linear(tmp_path, weights=np.ones((192, 2), np.float32), side=8))
    read_model(manifest)
    told = tried_environment()["SIXPIXELS_TRIED"]
    assert len(told.split(",")[-1]) == 64

    def never(*_: object) -> bytes:
        raise AssertionError("tried again")

    monkeypatch.setattr(trial, "run_apart", never)
    read_model(manifest)
    with pytest.raises(AssertionError, match="tried again"):
        try_once(echo, {"word": "new"}, b"", "file", SMALL)


def test_a_refused_file_is_refused_again(tmp_path: Path) -> None:
    path = write_linear(tmp_path, weights=np.ones((192, 2), np.float32), side=8)
    path.write_bytes(path.read_bytes()[:-100])
    for _ in range(2):
        with pytest.raises(InputError, match="cannot load"):
            read_model(read_manifest(path))


def test_shipped_models_are_known_and_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = find_manifest("facenet-mini")
    assert manifest.sha256 in shipped_hashes()
    assert manifest.checkpoint is not None
    assert manifest.checkpoint.sha256 in shipped_hashes()
    monkeypatch.setattr(trial, "run_apart", None)
    read_model(manifest)


def test_nothing_of_the_working_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    for name in ("json", "onnxruntime", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')")
    (tmp_path / "toolkit").mkdir()
    (tmp_path / "toolkit" / "__init__.py").write_text(f"open({str(ran)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    trial._nursery.cache_clear()
    assert run_apart(say_folder, {}, b"", "file", Allowance(20, 0, 256 << 20, 0, ("onnxruntime",))) == b"/"
    assert not ran.exists()


def test_a_lower_limit_of_the_user_holds(tmp_path: Path) -> None:
    """As `ulimit -d` sets it. The trial once failed, because it asked for more."""
    manifest = read_manifest(write_linear(tmp_path, weights=np.ones((192, 4), np.float32), side=8))
    code = (
        "import resource, sys; from toolkit.verifiers.manifest import read_manifest; "
        "from toolkit.verifiers.runtime import read_model; "
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)); "
        "from pathlib import Path; print(len(read_model(read_manifest(Path(sys.argv[1])))))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, manifest.path], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
