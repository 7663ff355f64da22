"""Rows of arrays that may be larger than the memory: crops and embeddings of many pairs."""

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
    """An array on disk that gives copies of its rows; indexed as an array by its first axis, and read-only.

    It is no memory map: pages of a map count as memory of the process once they were looked at.

    Attributes:
        shape: (N, ...), as of an array.
        dtype: of its values.
    """

    def __init__(self, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """`stream` holds the rows one after the other, and belongs to this object from now on."""
        self.shape, self.dtype = shape, dtype
        self._stream, self._lock = stream, threading.Lock()
        self._size = dtype.itemsize * int(np.prod(shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Rows by a number, a slice, or an array of numbers or truth values."""
        places = np.arange(len(self))[index]
        flat = places.reshape(-1)
        rows = np.empty((len(flat), *self.shape[1:]), self.dtype)
        # Neighbors are read at once.
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
    """Parts (k, ...) of one array as a whole, in memory, or on the disk of `folder` in a file without a name.

    Such a file vanishes with its process, however that ends.

    Args:
        parts: at least one, all alike but for their lengths.
        folder: an existing folder, or None for an array in memory.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    if folder is None:
        return np.concatenate(list(parts))
    count, last = 0, np.empty(0)
    try:
        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as its rows
        for last in parts:
            stream.write(np.ascontiguousarray(last).tobytes())
            count += len(last)
        stream.flush()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    return Rows(stream, (count, *last.shape[1:]), last.dtype)
