"""The command line in tests: in this process, which costs little, or in one of its own, as a user has it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import cli

ROOT = Path(__file__).resolve().parents[1]


def sixpixels(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, on a page of 80 columns unless the environment says otherwise."""
    words = ["sixpixels", *map(str, arguments)]
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    environment = {"COLUMNS": "80", **(os.environ if env is None else env)}
    status: object = 0
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", words),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code
    texts = (stream.buffer.getvalue().decode() for stream in (output, errors))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(words, int(str(status or 0)), *texts)


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, for what only a process shows: kills, pipes, encodings, full disks."""
    return subprocess.run(
        [sys.executable, ROOT / "cli.py", *map(str, arguments)],
        capture_output=True, text=True, check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], message: str, status: int = 2) -> None:
    """Check that a command ended with one line on standard error that says why."""
    assert done.returncode == status, done.stdout + done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("sixpixels: ")
    assert "Traceback" not in done.stderr


def script(name: str) -> Any:
    """A script of docs/, loaded anew as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    # Its dataclasses look for their module there.
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
