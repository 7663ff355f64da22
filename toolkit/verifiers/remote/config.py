"""`remote.toml`: where a remote verifier is, what goes in, what "same" means, and how often it may be called."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, quote, urlsplit

from toolkit.errors import InputError, UnavailableError
from toolkit.tables import Table, read_table
from toolkit.verifiers.manifest import (
    Alignment,
    Decision,
    Input,
    Output,
    read_alignment,
    read_decision,
    read_input,
    read_output,
    read_side,
)

SCHEMA_VERSION = 1
Kind = Literal["open-inference", "rekognition"]
_MOST_CALLS = 10_000_000
_LARGEST_BATCH = 256


@dataclass(frozen=True)
class Limits:
    """How a remote verifier may be called.

    Attributes:
        calls_per_second: at most; the first call is made at once.
        max_calls: in all, repeated ones included.
        timeout: of one call, in seconds.
        retries: how often a call is repeated that the server did not answer, or put off.
    """

    calls_per_second: float
    max_calls: int
    timeout: float
    retries: int


@dataclass(frozen=True)
class OpenInference:
    """A model behind the open inference protocol v2 that returns embeddings; distances are computed here.

    `[input]`, `[output]`, `[decision]` and `[alignment]` mean what they mean in a manifest. `token_env` names the
    environment variable of a bearer token; `batch` is how many crops go into one call.
    """

    path: Path
    name: str
    url: str
    model: str
    version: str | None
    token_env: str | None
    batch: int
    input: Input
    output: Output
    decision: Decision
    alignment: Alignment | None
    limits: Limits


@dataclass(frozen=True)
class Rekognition:
    """Amazon Rekognition's CompareFaces: "same" from a similarity of `threshold` (0 to 100) on.

    Crops are `width` x `height` pixels, taken by `[alignment]`; the service looks for the face in them itself.
    Credentials come from where boto3 looks for them, never from the file. `url` replaces the region's own address.
    """

    path: Path
    name: str
    region: str
    url: str | None
    width: int
    height: int
    threshold: float
    alignment: Alignment | None
    limits: Limits


def read_remote(path: Path) -> OpenInference | Rekognition:
    """Read and check a `remote.toml`.

    Raises:
        InputError: it cannot be read or is not valid; the message names the key.
    """
    top = read_table(path, SCHEMA_VERSION)
    remote = _read_open_inference(top) if top.choice("kind", Kind) == get_args(Kind)[0] else _read_rekognition(top)
    top.done()
    return remote


def _read_open_inference(top: Table) -> OpenInference:
    return OpenInference(
        path=top.source,
        name=_text(top, "name"),
        url=_url(top, top.take("url", str)),
        model=_text(top, "model"),
        version=_text(top, "version", None),
        token_env=_text(top, "token_env", None),
        batch=_number(top, "batch", int, 1, _LARGEST_BATCH, 8),
        input=read_input(top.table("input")),
        output=read_output(top.table("output")),
        decision=read_decision(top.table("decision")),
        alignment=read_alignment(top.table("alignment")),
        limits=_limits(top.table("limits")),
    )


def _read_rekognition(top: Table) -> Rekognition:
    url = top.take("url", str, None)
    size = top.table("input")
    remote = Rekognition(
        path=top.source,
        name=_text(top, "name"),
        region=_text(top, "region"),
        url=None if url is None else _url(top, url),
        width=read_side(size, "width"),
        height=read_side(size, "height"),
        threshold=_number(top, "threshold", float, 0.0, 100.0),
        alignment=read_alignment(top.table("alignment")),
        limits=_limits(top.table("limits")),
    )
    size.done()
    return remote


def _limits(table: Table) -> Limits:
    limits = Limits(
        calls_per_second=_number(table, "calls_per_second", float, 1e-3, 1e4),
        max_calls=_number(table, "max_calls", int, 1, _MOST_CALLS),
        timeout=_number(table, "timeout", float, 1e-2, 600.0, 10.0),
        retries=_number(table, "retries", int, 0, 10, 4),
    )
    table.done()
    return limits


def _number(table: Table, key: str, kind: type, low: float, high: float, default: Any = ...) -> Any:
    value = table.take(key, kind, default)
    if not low <= value <= high:
        raise table.fail(key, f"must be from {low:g} to {high:g}, not {value!r}")
    return value


def _text(table: Table, key: str, default: Any = ...) -> Any:
    value = table.take(key, str, default)
    if value is not None and not value.strip():
        raise table.fail(key, "is empty")
    return value


def _url(table: Table, url: str) -> str:
    """An address that may be called: https, unless it is this machine or the file allows plain http."""
    allowed = table.take("allow_http", bool, False)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise table.fail("url", f"is no address ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise table.fail("url", f"must begin with https:// and name a host, not {url!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise table.fail("url", "must have no user, password, query or fragment; a token comes from token_env")
    if parts.scheme == "http" and not allowed and not _is_loopback(parts):
        raise table.fail("url", f"sends faces to {parts.hostname} unencrypted; use https, or set allow_http = true")
    return url.rstrip("/")


def _is_loopback(parts: SplitResult) -> bool:
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def model_path(remote: OpenInference) -> str:
    """The part of the address that names the model (and its version)."""
    version = "" if remote.version is None else f"/versions/{quote(remote.version, safe='')}"
    return f"/v2/models/{quote(remote.model, safe='')}{version}"


def token(remote: OpenInference) -> str | None:
    """The bearer token, from the environment alone.

    Raises:
        UnavailableError: the variable is not set.
        InputError: it holds what no header can hold; the message does not repeat it.
    """
    if remote.token_env is None:
        return None
    value = os.environ.get(remote.token_env, "")
    if not value:
        raise UnavailableError(f"{remote.path}: token_env names {remote.token_env}, which is not set; set it")
    if not (value.isascii() and value.isprintable()):
        raise InputError(f"{remote.path}: {remote.token_env} holds characters that no token has")
    return value
