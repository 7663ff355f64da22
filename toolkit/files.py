"""Files: atomic writes, hashes, and paths that stay inside their folder."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from toolkit.errors import InputError

_BLOCK = 1 << 20
# Names the machine in temporary files, since a number of a process means nothing on another one.
_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
# The longest name of a file that common file systems take, in bytes.
_LONGEST_NAME = 255


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks.

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
    """Hash of a file, or of a folder: of the lines ``hash  name`` of its files, sorted by name, as sha256sum prints.

    Raises:
        InputError: something is missing or cannot be read.
    """
    if not path.is_dir():
        return sha256(path)
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return hashlib.sha256("".join(f"{sha256(path / name)}  {name}\n" for name in names).encode()).hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file with a stated hash before anything parses it.

    Raises:
        InputError: the file cannot be read, or has another hash.
    """
    found = sha256(path)
    if found != expected:
        raise InputError(f"{path}: sha256 is {found}, but {expected} is expected; the file was changed or damaged")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write a file that appears complete or not at all, by something that wants a path.

    Yields:
        The path of an empty temporary file beside `path`; on success it is flushed to disk and renamed, on any
        exception (an interrupt too) it is removed.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    temporary = path.parent / f".{path.name}.{_HERE}-{os.getpid()}-{secrets.token_hex(6)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its files are readable by their owner alone, and stay so after the rename.
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
    """`atomic_path` for a stream: a file that appears complete or not at all.

    Yields:
        A binary stream.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        yield stream


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically; see `atomic_write`."""
    with atomic_write(path) as stream:
        stream.write(content)


def remove_stale_parts(folder: Path) -> None:
    """Remove what `atomic_path` left in `folder` where its process was killed; of living ones nothing is touched."""
    for path in folder.glob(".*.part"):
        owner = re.search(rf"\.{_HERE}-(\d+)-[0-9a-f]+\.part$", path.name)
        if owner and not _lives(int(owner[1])):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    """Whether there is such a process on this machine; where that cannot be asked, it is taken to live."""
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
    """Resolve a path named by an untrusted file, which must stay inside `folder`.

    Raises:
        InputError: the path is absolute or leaves the folder; `what` names it in the message.
    """
    if "\0" in relative or any(len(part.encode()) > _LONGEST_NAME for part in Path(relative).parts):
        raise InputError(f"{what}: {relative[:40]!r} is no path")
    path = (folder / relative).resolve()
    if Path(relative).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise InputError(f"{what}: {relative!r} leaves the folder {folder}")
    return path


def bundled(kind: str) -> Path:
    """Folder of what is shipped: `models` or `profiles`, from a checkout or from an installed wheel."""
    package = Path(__file__).resolve().parent
    installed = package / "shipped" / kind
    return installed if installed.is_dir() else package.parent / kind
