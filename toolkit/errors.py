"""The one exception family. A message says what was wrong, where, and what to do about it."""

from __future__ import annotations


class SixpixelsError(Exception):
    """Base of every error that a user can act on; the command line prints it as one line."""

    exit_status = 2


class InputError(SixpixelsError):
    """A file, image, pair list, manifest, profile or value is not usable."""


class UnavailableError(SixpixelsError):
    """Something that is not part of this installation is needed: an extra, a provider, a checkpoint, a network."""


class InsufficientError(SixpixelsError):
    """Nothing, or too little, is left to test after what is unusable was left out."""

    exit_status = 3


class UsageError(SixpixelsError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_status = 4
