"""The exception hierarchy. Each message says what was wrong, where, and what to do about it."""

from __future__ import annotations

from toolkit.text import shown


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
