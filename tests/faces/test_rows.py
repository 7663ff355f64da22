"""Rows on disk are the rows of the array."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.faces.rows import Rows, gather_rows
from toolkit.verifiers.manifest import find_manifest


def test_rows_are_indexed_as_the_array_is(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (23, 4, 3)).astype(np.uint8)
    rows = gather_rows([array[:0], array[:5], array[5:]], tmp_path)
    assert isinstance(rows, Rows)
    assert not list(tmp_path.iterdir()), "the file has no name that could be left behind"
    assert (len(rows), rows.shape, rows.dtype) == (23, array.shape, array.dtype)
    numbers = np.array([[4, 5, 6, 2], [2, 22, 0, 0]])
    mask = np.arange(23) % 3 == 0
    for index in (0, -1, np.intp(7), slice(3, 9), slice(None), slice(9, 2, -2), numbers, numbers[0], [5, 1], mask,
                  np.array([], np.intp)):  # fmt: skip
        np.testing.assert_array_equal(rows[index], array[index])
    with pytest.raises(IndexError):
        rows[23]
    np.testing.assert_array_equal(gather_rows([array[:5], array[5:]], None)[:], array)


def test_crops_on_disk_are_the_crops_in_memory(tmp_path: Path) -> None:
    manifest = find_manifest("facenet-mini")
    assert manifest.alignment is not None
    asked = load_pairs(embedded_pairs(), limit=6), 160, 160, manifest.alignment.template
    inside, outside = crop_pairs(*asked), crop_pairs(*asked, spill=tmp_path)
    assert isinstance(outside.images, Rows)
    np.testing.assert_array_equal(outside.images[:], inside.images[:])
    np.testing.assert_array_equal(outside.index, inside.index)
    assert (outside.names, outside.pairs, outside.left_out) == (inside.names, inside.pairs, inside.left_out)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            gather_rows([np.zeros((10, 1000), np.uint8)], tmp_path)
        except InputError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
