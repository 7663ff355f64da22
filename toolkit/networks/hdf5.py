"""HDF5 files of weights: everything inside is checked before any data are read.

HDF5 can do more than hold numbers: link to other files, keep data in other files, load filters from shared libraries,
and declare arrays of any size in a few bytes. None of this belongs into a file of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from toolkit.errors import InputError, refusing

# gzip, shuffle and Fletcher's checksum are a part of HDF5 itself.
_FILTERS = (1, 2, 3)
_MOST_OBJECTS = 100_000
_LARGEST = 4 << 30


@contextmanager
def open_hdf5(file: Path | IO[bytes], where: str) -> Iterator[Any]:
    """Open an HDF5 file of weights, and check all its groups and arrays.

    Args:
        file: the file.
        where: the file, for error messages.

    Yields:
        The `h5py.File`.

    Raises:
        InputError: the file is damaged, leads to other files, or has arrays that are no plain numbers or too large.
            Whatever h5py raises inside the block becomes this error too.
    """
    import h5py

    with refusing(f"{where}: is not an HDF5 file of weights, or is damaged"), h5py.File(file, "r") as opened:
        _check(opened, where)
        yield opened


def _check(file: Any, where: str) -> None:
    import h5py

    waiting, seen, size = [file], {_address(file)}, 0
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            place = f"{where}: {group.name.rstrip('/')}/{name}"
            if not isinstance(link, h5py.HardLink):
                raise InputError(f"{place} is a link to another place or file; save the weights without links")
            item = group[name]
            if _address(item) in seen:
                continue
            seen.add(_address(item))
            if isinstance(item, h5py.Group):
                waiting.append(item)
            else:
                size += _size(item, place)
            if len(seen) > _MOST_OBJECTS or size > _LARGEST:
                raise InputError(f"{where}: has more than {_MOST_OBJECTS} objects or 4 GB; this is not a verifier")


def _address(item: Any) -> Any:
    import h5py

    return h5py.h5o.get_info(item.id).addr


def _size(item: Any, place: str) -> int:
    """Return how many bytes an array has.

    Raises:
        InputError: it is no plain array of numbers.
    """
    import h5py

    if not isinstance(item, h5py.Dataset):
        raise InputError(f"{place} is no array; save the weights without named types")
    if item.external or item.is_virtual:
        raise InputError(f"{place} keeps its data in other files; save the weights in one file")
    properties = item.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if not set(filters) <= set(_FILTERS):
        raise InputError(f"{place} needs a filter that is not a part of HDF5; save it with gzip or without")
    if item.dtype.kind not in "fiub":
        raise InputError(f"{place} has values of type {item.dtype}; weights must be numbers")
    return int(item.size or 0) * int(item.dtype.itemsize)
