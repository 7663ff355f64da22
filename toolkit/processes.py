"""Processes of the toolkit's own modules."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# A process must import this copy of the toolkit, whatever its working folder is.
_ROOT = str(Path(__file__).resolve().parents[1])


def start_module(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a module's main program, with pipes to its standard input and from its standard output.

    Args:
        module: the module, such as ``toolkit.audit.workers.process``.
        arguments: the arguments of its command line.
        environment: variables to set besides those of this process.
        stderr: where standard error goes, as for `subprocess.Popen`; None shows it.

    Raises:
        OSError: no process can be started.
    """
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(  # noqa: S603 - a module of the toolkit
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
        env=os.environ | (environment or {}) | {"PYTHONPATH": path},
    )  # fmt: skip
