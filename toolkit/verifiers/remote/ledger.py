"""The ledger of an audit: every call that was made and every answer that was paid for, kept as soon as it arrives.

It is a file of lines, each a JSON object, that only grows. A process that is killed leaves at most an incomplete last
line. Calls are written before they are made, so that they count even if no answer came back.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.plain import parse_json

Numbers = NDArray[np.float64]

LEDGER = "answers.jsonl"
SCHEMA_VERSION = 1
# A line has the answers of one call: 256 embeddings of 2,048 numbers are 6 MB of base64.
_LONGEST_LINE = 1 << 23
# The answers are held in memory. 2 GiB are the embeddings of three million crops.
_LARGEST = 2 << 30


class Ledger:
    """The answers of a service, by a key for each request. Several threads may use it at once.

    Attributes:
        calls: the calls that were made, by all processes of the run.
        refusals: how often the service decided "different", by the reference that it compared.
        canary: the answers to the first canary; None before it.
    """

    def __init__(self, path: Path | None, identity: str) -> None:
        """Read a ledger, or begin one.

        Args:
            path: the file; None keeps the answers in memory only.
            identity: what the answers depend on, see `Service.identity`.

        Raises:
            InputError: the file cannot be read or written, is damaged, or is of another service.
        """
        self.calls = 0
        self.canary: Mapping[str, Any] | None = None
        self.refusals: dict[str, int] = {}
        self._known: dict[str, Numbers] = {}
        self._unconfirmed: dict[str, str | None] = {}
        self._path, self._lock = path, threading.Lock()
        self._file: int | None = None
        if path is not None:
            whole = self._read(path, identity) if path.exists() else 0
            self._open(path, whole)
            if not whole:
                self._write({"schema": SCHEMA_VERSION, "service": identity})

    def __len__(self) -> int:
        """The number of requests whose answers are known."""
        return len(self._known)

    def get(self, key: str) -> Numbers | None:
        """The answer to a request; None if it was not asked yet."""
        return self._known.get(key)

    def called(self) -> None:
        """Note that a call is about to be made."""
        with self._lock:
            self.calls += 1
            self._write({"call": self.calls})

    def keep(self, keys: Sequence[str], answers: NDArray[np.floating[Any]], refused: str | None = None) -> None:
        """Keep the answers of one call. Answers that are known already stay as they are.

        Args:
            keys: (N,), one key for each request of the call.
            answers: (N, D) or (N,), float32 or float64.
            refused: the reference against which the service decided "different"; None if it did not.
        """
        values = np.ascontiguousarray(answers).reshape(len(keys), -1)
        rows = [base64.b64encode(row.tobytes()).decode() for row in values]
        line: dict[str, Any] = {"keys": list(keys), "type": values.dtype.str, "answers": rows}
        if refused is not None:
            line["refused"] = refused
        with self._lock:
            self._write(line)
            self._learn(keys, list(values), refused)

    def begin_canary(self, answers: Mapping[str, Any]) -> None:
        """Keep the answers to the first canary."""
        with self._lock:
            self.canary = answers
            self._write({"canary": dict(answers)})

    def confirm(self) -> None:
        """Note that the service is still the same, so that the answers until now are its own."""
        with self._lock:
            if self._unconfirmed:
                self._write({"confirmed": len(self._known)})
                self._unconfirmed.clear()

    def void(self) -> int:
        """Forget the answers since the last `confirm`, because they may be another service's. Return their number."""
        with self._lock:
            forgotten = len(self._unconfirmed)
            self._write({"void": forgotten})
            self._forget()
            return forgotten

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _forget(self) -> None:
        for key, refused in self._unconfirmed.items():
            self._known.pop(key, None)
            if refused is not None:
                self.refusals[refused] -= 1
        self._unconfirmed.clear()

    def _open(self, path: Path, whole: int) -> None:
        """Open the file to append, without an incomplete last line."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.ftruncate(self._file, whole)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another run folder") from error

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        rest = memoryview(json.dumps(line, allow_nan=False).encode() + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise InputError(
                f"{self._path}: cannot be written ({error.strerror}); make room and give the same command again"
            ) from error

    def _read(self, path: Path, identity: str) -> int:
        """Read all complete lines. Return the number of bytes that they have."""
        whole = number = 0
        try:
            if path.stat().st_size > _LARGEST:
                raise InputError(f"{path}: is larger than {_LARGEST >> 30} GiB; choose another run folder")
            with path.open("rb") as stream:
                while line := stream.readline(_LONGEST_LINE + 1):
                    if len(line) > _LONGEST_LINE:
                        raise InputError(f"{path}: line {number + 1} is too long; this cannot be a ledger of ours")
                    if not line.endswith(b"\n"):
                        break
                    number += 1
                    content = parse_json(line, f"{path}, line {number}")
                    if number == 1:
                        _check_head(content, path, identity)
                    else:
                        self._replay(content, f"{path}, line {number}")
                    whole += len(line)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        return whole

    def _replay(self, line: Any, where: str) -> None:
        try:
            if "call" in line:
                self.calls = int(line["call"])
            elif "keys" in line:
                self._take(line)
            elif "canary" in line:
                self.canary = {str(name): value for name, value in line["canary"].items()}
            elif "confirmed" in line:
                self._unconfirmed.clear()
            elif "void" in line:
                self._forget()
            else:
                raise InputError(f"{where}: is no line of a ledger; restore the file, or choose another run folder")
        except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
            raise InputError(f"{where}: is damaged; restore the file, or choose another run folder") from error

    def _take(self, line: Mapping[str, Any]) -> None:
        keys, kind = line["keys"], line["type"]
        if kind not in ("<f4", "<f8") or not all(type(key) is str for key in keys):
            raise ValueError(kind)
        answers = [np.frombuffer(base64.b64decode(row, validate=True), kind) for row in line["answers"]]
        self._learn(keys, answers, line.get("refused"))

    def _learn(self, keys: Sequence[str], answers: Sequence[Numbers], refused: str | None) -> None:
        for key, answer in zip(keys, answers, strict=True):
            if key not in self._known:
                self._known[key] = answer
                self._unconfirmed[key] = refused
        if refused is not None:
            self.refusals[refused] = self.refusals.get(refused, 0) + 1


def _check_head(content: Any, path: Path, identity: str) -> None:
    if not isinstance(content, dict) or content.get("schema") != SCHEMA_VERSION:
        raise InputError(f"{path}: is no ledger of schema {SCHEMA_VERSION}; choose another run folder")
    if content.get("service") != identity:
        raise InputError(
            f"{path}: has the answers of another service ({content.get('service')}); choose another run folder"
        )
