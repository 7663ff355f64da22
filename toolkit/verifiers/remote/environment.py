"""Secrets of remote verifiers. They come from the environment, never from a file."""

from __future__ import annotations

import os
from pathlib import Path

from toolkit.errors import InputError, UnavailableError


def read_secret(file: Path, key: str, name: str) -> str:
    """Read a secret from an environment variable.

    Args:
        file: the file that names the variable, for messages.
        key: the key in the file, for messages.
        name: the name of the variable.

    Raises:
        UnavailableError: the variable is not set.
        InputError: the secret has characters that a header cannot contain. The message does not show the secret.
    """
    value = os.environ.get(name, "")
    if not value:
        raise UnavailableError(f"{file}: {key} names {name}, which is not set; set this environment variable")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise InputError(
            f"{file}: {name} must have only printable ASCII characters without spaces; set it to the token"
        )
    return value
