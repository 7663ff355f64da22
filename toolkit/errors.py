"""The exception hierarchy. Each message says what was wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.text import shown

_LONGEST_REASON = 200


class SixpixelsError(Exception):
    """Base class of every error that a user can act on. The command line prints the message as one line.

    Messages quote names and texts from files and servers, so every message is made visible and cut (`text.shown`).
    """

    exit_status = 2

    def __init__(self, message: object) -> None:
        super().__init__(shown(message))


class InputError(SixpixelsError):
    """A file, image, pair list, manifest, profile or value cannot be used."""


class UnavailableError(SixpixelsError):
    """The installation lacks something that is needed: an extra, a provider, a checkpoint, a network."""


class InsufficientError(SixpixelsError):
    """Too little data is left to test after unusable data was left out."""

    exit_status = 3


class UsageError(SixpixelsError):
    """The command line names something that does not exist, or combines options that do not fit together."""

    exit_status = 4


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters; the name of its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_LONGEST_REASON]


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn everything that a parser raises inside the block into an `InputError`. Errors of this family pass unchanged.

    Parsers of hostile files raise whatever their code happens to raise: KeyError, RecursionError, MemoryError and the
    types of other libraries. Use this once for each kind of file, around everything that reads it.

    Args:
        what: the start of the message: the file, and what cannot be done with it.

    Raises:
        InputError: the block raised an error of any other family.
    """
    try:
        yield
    except SixpixelsError:
        raise
    except Exception as error:
        raise InputError(f"{what} ({reason_of(error)})") from error
