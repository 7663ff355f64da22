"""Trials: what native code parses from a file that is not shipped runs first in a process of its own.

ONNX Runtime, TensorFlow and HDF5 are written in C and C++. A hostile file may crash them, keep them busy forever or
make them take all memory. `run_apart` therefore calls a function in a child of a small helper process (`nursery.py`),
with limits of memory and of time. The child's death becomes an error of one line. The helper starts once, with the
first trial, and forks a child for each, so that a trial costs little more than the work itself.

A file is tried once in a process. Shipped files, known by their hash, are not tried. OpenCV decodes images in the
toolkit's own process, because `faces/images.py` checks their headers first. Windows has no fork, so that nothing is
tried there.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import toolkit
from toolkit.errors import InputError, UnavailableError
from toolkit.files import bundled
from toolkit.quiet import DEBUG
from toolkit.tables import read_toml

# Set to a number, it is how many seconds a trial may take besides those that the file's size adds.
SECONDS = "SIXPIXELS_TRIAL_SECONDS"
# The hashes of trials that a parent process made, for its workers.
_TRIED = "SIXPIXELS_TRIED"
_MOST_PASSED_ON = 64
# First byte of an answer. DONE: a result follows. REFUSED: a message follows. DIED: the number of a signal or a status.
DONE, REFUSED, UNABLE, DIED, LATE = b"+", b"-", b"!", b"x", b"t"
_LARGEST_ANSWER = 4 << 30
_MEGABYTE = 1 << 20
# The helper must import this copy of the toolkit.
_ROOT = str(Path(toolkit.__file__).resolve().parents[1])

Work = Callable[[dict[str, Any], bytes], bytes]


@dataclass(frozen=True)
class Allowance:
    """What a trial may use: `seconds` and `memory` in bytes as they are, and more for each megabyte of the file.

    `modules` are imported before the child starts, so that their time does not count.
    """

    seconds: float
    seconds_per_megabyte: float
    memory: int
    memory_per_byte: int
    modules: tuple[str, ...] = ()


ONNX = Allowance(10, 0.1, 1536 * _MEGABYTE, 8, ("onnxruntime",))
TENSORFLOW = Allowance(30, 1, 3072 * _MEGABYTE, 16, ("tensorflow", "keras"))
HDF5 = Allowance(10, 0.1, 512 * _MEGABYTE, 4, ("h5py",))


def run_apart(
    work: Work, parameters: dict[str, Any], content: bytes, what: str, allowance: Allowance, size: int | None = None
) -> bytes:
    """Call a function in a process of its own, with limits of memory and time.

    Args:
        work: a function of a module's top level. It takes the parameters and the content, and returns bytes.
        parameters: anything that JSON can hold.
        content: bytes for the function.
        what: the file, for the error message.
        allowance: the limits.
        size: the bytes of the file, which the limits grow with. Default: those of `content`.

    Returns:
        What the function returns.

    Raises:
        InputError: the function refused the file, raised any error, died, took too long, or took too much memory.
        UnavailableError: the function lacks something, or the helper process cannot start.
    """
    if not hasattr(os, "fork"):
        return work(parameters, content)
    size = len(content) if size is None else size
    seconds = float(os.environ.get(SECONDS) or allowance.seconds) + allowance.seconds_per_megabyte * size / _MEGABYTE
    header = {
        "module": work.__module__,
        "function": work.__qualname__,
        "parameters": parameters,
        "modules": allowance.modules,
        "seconds": seconds,
        "memory": allowance.memory + allowance.memory_per_byte * size,
    }
    answer = _nursery().ask(json.dumps(header).encode(), content)
    kind, rest = answer[:1], answer[1:]
    if kind == DONE:
        return rest
    message = rest.decode(errors="replace")
    if kind == REFUSED:
        raise InputError(message)
    if kind == UNABLE:
        raise UnavailableError(message)
    if kind == LATE:
        raise InputError(
            f"{what}: a trial of this file took longer than {seconds:.0f} seconds; do not use it, or, if you trust it, "
            f"set {SECONDS} to a larger number"
        )
    raise InputError(f"{what}: a trial of this file died ({message}); the file is damaged or hostile, so do not use it")


def try_once(
    work: Work, parameters: dict[str, Any], content: bytes, what: str, allowance: Allowance, size: int | None = None
) -> None:
    """Call `run_apart`, unless this process or its parent has done so before with the same arguments.

    Raises:
        InputError, UnavailableError: as in `run_apart`.
    """
    digest = hashlib.sha256(json.dumps([work.__module__, work.__qualname__, parameters]).encode())
    digest.update(content)
    key = digest.hexdigest()
    if key not in _tried():
        run_apart(work, parameters, content, what, allowance, size)
        _tried()[key] = None


def tried_environment() -> dict[str, str]:
    """Return the environment variable that tells a worker process which trials were made already."""
    return {_TRIED: ",".join(list(_tried())[-_MOST_PASSED_ON:])}


@cache
def _tried() -> dict[str, None]:
    return dict.fromkeys(filter(None, os.environ.get(_TRIED, "").split(",")))


@cache
def shipped_hashes() -> frozenset[str]:
    """Return the SHA-256 of every model, checkpoint and denoiser that is shipped with the toolkit."""
    found: set[str] = set()
    for path in bundled("models").glob("*/*.toml"):
        tables = [table for table in read_toml(path)[0].values() if isinstance(table, dict)]
        found.update(table["sha256"] for table in tables if "sha256" in table)
    return frozenset(found)


def is_shipped(content: bytes) -> bool:
    """Return whether these are the bytes of a file that is shipped with the toolkit."""
    return hashlib.sha256(content).hexdigest() in shipped_hashes()


class _Nursery:
    """The helper process, and the connection to it."""

    def __init__(self) -> None:
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        path = os.pathsep.join([_ROOT, *(entry for entry in given if Path(entry).is_absolute())])
        self.link, theirs = Pipe()
        silent = None if os.environ.get(DEBUG) else subprocess.DEVNULL
        try:
            # -P, and a folder of the system, so that nothing of the working folder is imported or read.
            self.process = subprocess.Popen(  # noqa: S603 - nothing of a user's
                [sys.executable, "-P", "-m", "toolkit.verifiers.nursery", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=silent, stderr=silent, pass_fds=[theirs.fileno()], cwd=os.sep,
                env=os.environ | {"PYTHONPATH": path, "KERAS_BACKEND": "tensorflow", "OPENBLAS_NUM_THREADS": "1",
                                  "MALLOC_ARENA_MAX": "2"},
            )  # fmt: skip
        except OSError as error:
            raise UnavailableError(
                f"no helper process can be started ({error.strerror}); close other programs"
            ) from error
        finally:
            theirs.close()
        self._lock = threading.Lock()
        atexit.register(self.link.close)

    def ask(self, header: bytes, content: bytes) -> bytes:
        """Send one request, and wait for its answer.

        Raises:
            UnavailableError: the helper process has died.
        """
        with self._lock:
            try:
                self.link.send_bytes(header)
                self.link.send_bytes(content)
                return self.link.recv_bytes(_LARGEST_ANSWER)
            except BaseException as error:  # an interrupt too: its answer must not be taken for the next one
                self.link.close()
                _nursery.cache_clear()
                if not isinstance(error, OSError | EOFError):
                    raise
                raise UnavailableError("the helper process that tries files has died; try again") from error


@cache
def _nursery() -> _Nursery:
    return _Nursery()
