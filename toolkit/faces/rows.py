"""Arrays on disk, for crops and embeddings of many pairs that may not fit in memory."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError


class Rows:
    """A read-only array on disk. Indexing along the first axis returns copies of rows.

    A memory map is not used, because the pages that were read count as memory of the process.

    Attributes:
        shape: (N, ...), the shape of the array.
        dtype: the data type of the values.
    """

    def __init__(self, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Take ownership of `stream`, which contains all rows one after the other.

        Args:
            stream: a seekable binary stream.
            shape: (N, ...), the shape of the array.
            dtype: the data type of the values.
        """
        self.shape, self.dtype = shape, dtype
        self._stream, self._lock = stream, threading.Lock()
        self._size = dtype.itemsize * int(np.prod(shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Return a copy of the rows that an integer, a slice, or an array of integers or booleans selects."""
        places = np.arange(len(self))[index]
        flat = places.reshape(-1)
        rows = np.empty((len(flat), *self.shape[1:]), self.dtype)
        # Consecutive rows are read with one call.
        starts = np.flatnonzero(np.diff(flat, prepend=-2) != 1)
        for start, end in itertools.pairwise([*starts, len(flat)]):
            self._read(int(flat[start]), rows[start:end])
        return rows.reshape(*places.shape, *self.shape[1:])

    def _read(self, first: int, into: NDArray[Any]) -> None:
        with self._lock:
            self._stream.seek(first * self._size)
            content = self._stream.read(into.nbytes)
        into[...] = np.frombuffer(content, self.dtype).reshape(into.shape)


def gather_rows(parts: Iterable[NDArray[Any]], folder: Path | None) -> NDArray[Any] | Rows:
    """Concatenate parts of an array along the first axis, in memory or in a temporary file.

    The temporary file has no name. It disappears when the process ends, even if the process is killed.

    Args:
        parts: one or more arrays (k, ...) with the same data type and the same shape after the first axis.
        folder: an existing folder for the temporary file; None for an array in memory.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    if folder is None:
        return np.concatenate(list(parts))
    count, last = 0, np.empty(0)
    try:
        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `Rows` needs the open file
        for last in parts:
            stream.write(np.ascontiguousarray(last).tobytes())
            count += len(last)
        stream.flush()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    return Rows(stream, (count, *last.shape[1:]), last.dtype)
