"""File utilities: atomic writes, hashes, and paths that must stay inside a folder."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from toolkit.errors import InputError

_BLOCK = 1 << 20
# Identifies the machine in the names of temporary files, because a process ID is valid on one machine only.
_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_PART = re.compile(rf"\.{_HERE}-(\d{{1,10}})-([0-9a-f]+)\.part$")
# The longest file name that common file systems accept, and the longest path in a list, in bytes.
_LONGEST_NAME = 255
_LONGEST_PATH = 2048
# Tells this process from an earlier one that had the same ID, as in a container that was started again.
_TOKEN = secrets.token_hex(6)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file. The file is read in blocks.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file or a folder.

    The hash of a folder is the hash of its file list: one line ``hash  name`` for each file, sorted by name, in the
    format of sha256sum.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    if not path.is_dir():
        return sha256(path)
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return hashlib.sha256("".join(f"{sha256(path / name)}  {name}\n" for name in names).encode()).hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Check that a file has the expected hash. Call this before anything parses the file.

    Raises:
        InputError: the file cannot be read, or its hash differs.
    """
    found = sha256(path)
    if found != expected:
        raise InputError(f"{path}: sha256 is {found}, but {expected} is expected; the file was changed or damaged")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write a file atomically, for writers that need a path: the file appears complete or not at all.

    Temporary files that killed processes left in the folder are removed.

    Yields:
        The path of an empty temporary file beside `path`. On success the temporary file is flushed to disk and
        renamed to `path`. On any exception, including an interrupt, it is removed.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    temporary = path.parent / f".{path.name}.{_HERE}-{os.getpid()}-{_TOKEN}{secrets.token_hex(6)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(path.parent)
        # tempfile would create files that only their owner can read, and the rename keeps those permissions.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file atomically through a stream: the file appears complete or not at all. See `atomic_path`.

    Yields:
        A binary stream.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        yield stream


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically. See `atomic_write`."""
    with atomic_write(path) as stream:
        stream.write(content)


def remove_stale_parts(folder: Path) -> None:
    """Remove temporary files that `atomic_path` left in `folder` because its process was killed.

    Temporary files of running processes are kept.
    """
    with suppress(OSError), os.scandir(folder) as entries:  # a folder of probes has thousands of them
        names = [entry.name for entry in entries if entry.name.endswith(".part")]
        for name in names:
            owner = _PART.search(name)
            if owner and _is_stale(int(owner[1]), owner[2]):
                with suppress(OSError):  # it belongs to somebody else, or another process was faster
                    (folder / name).unlink()


def _is_stale(process: int, token: str) -> bool:
    return not token.startswith(_TOKEN) if process == os.getpid() else not _lives(process)


def _lives(process: int) -> bool:
    """Return whether a process with this ID runs on this machine. If this is unknown, return True."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def inside(folder: Path, relative: str, what: str) -> Path:
    """Resolve a path that an untrusted file names, and check that it stays inside `folder`.

    Args:
        folder: the folder that the path must not leave.
        relative: the path, relative to `folder`.
        what: what the path is, for the error message.

    Raises:
        InputError: the path is absolute, leaves the folder, or is not a valid path.
    """
    path = (folder / checked_path(relative, what)).resolve()
    if Path(relative).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise InputError(f"{what}: {relative!r} leaves the folder {folder}")
    return path


def checked_path(text: str, what: str) -> Path:
    """Return a path from outside. File systems accept it and its names; nothing may be there.

    Args:
        text: the path.
        what: what the path is, for the error message.

    Raises:
        InputError: it has a null character, or a name or the whole is too long.
    """
    try:
        names = [os.fsencode(part) for part in Path(text).parts]
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: {text[:40]!r} is not a valid path") from error
    whole = sum(map(len, names)) + len(names)
    if "\0" in text or whole > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in names):
        raise InputError(f"{what}: {text[:40]!r} is not a valid path")
    return Path(text)


def bundled(kind: str) -> Path:
    """Return the folder of shipped files of one kind, in a checkout or in an installed wheel.

    Args:
        kind: `models` or `profiles`.
    """
    package = Path(__file__).resolve().parent
    installed = package / "shipped" / kind
    return installed if installed.is_dir() else package.parent / kind
