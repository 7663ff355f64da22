"""`remote.toml`: the address of a remote verifier, its input and decision rule, and the limits for calls."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

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
from toolkit.verifiers.remote.environment import read_secret
from toolkit.verifiers.remote.json_table import Answer, Request, read_answer, read_request
from toolkit.verifiers.remote.limits import Limits, read_limits, read_number
from toolkit.verifiers.remote.scale import Scale

SCHEMA_VERSION = 1
Answers = Literal["embedding", "similarity", "decision"]
Kind = Literal["open-inference", "rekognition", "json"]
Protocol = Literal["http", "grpc"]
LARGEST_BATCH = 256
_LARGEST_EMBEDDING = 1 << 16


@dataclass(frozen=True)
class OpenInference:
    """A remote model that returns embeddings through the open inference protocol v2. Distances are computed locally.

    The tables `[input]`, `[output]`, `[decision]` and `[alignment]` have the same meaning as in a manifest.
    `token_env` is the name of the environment variable with the bearer token. `batch` is the number of crops per call.
    `binary` sends tensors over HTTP as bytes instead of JSON, which the server must support.
    """

    path: Path
    name: str
    url: str
    model: str
    version: str | None
    token_env: str | None
    protocol: Protocol
    binary: bool
    batch: int
    input: Input
    output: Output
    decision: Decision
    alignment: Alignment | None
    limits: Limits

    @property
    def width(self) -> int:
        """The width of crops in pixels."""
        return self.input.width

    @property
    def height(self) -> int:
        """The height of crops in pixels."""
        return self.input.height

    @property
    def answers(self) -> Answers:
        """What the service answers."""
        return "embedding"

    @property
    def address(self) -> str:
        """The server and its model."""
        return f"{self.url}{model_path(self)}" + (" (gRPC)" if self.protocol == "grpc" else "")

    @property
    def identity(self) -> str:
        """What the embeddings of a crop depend on."""
        return identity_of("open-inference", self.address, [asdict(self.input), asdict(self.output)])


@dataclass(frozen=True)
class Rekognition:
    """Amazon Rekognition's CompareFaces. `decision` is that of `pairs.Scale`, for similarities from 0 to 100.

    Crops have `width` x `height` pixels and are aligned with `[alignment]`. The service detects the faces in them
    itself. The credentials come from boto3's usual sources, never from this file. `url` replaces the address of the
    region.
    """

    path: Path
    name: str
    region: str
    url: str | None
    width: int
    height: int
    scale: Scale
    alignment: Alignment | None
    limits: Limits

    @property
    def decision(self) -> Decision:
        """The decision rule."""
        return self.scale.decision

    @property
    def answers(self) -> Answers:
        """What the service answers."""
        return "similarity"

    @property
    def address(self) -> str:
        """The service."""
        return self.url or f"rekognition in {self.region}"

    @property
    def identity(self) -> str:
        """What the distance of two crops depends on."""
        return identity_of("rekognition", self.address, [self.region, self.width, self.height])


@dataclass(frozen=True)
class Embedding:
    """The embedding in an answer: its length, and whether to L2-normalize it before computing distances."""

    size: int
    normalize: bool


@dataclass(frozen=True)
class JsonService:
    """Any JSON service that compares two crops, or embeds one. It gets crops of `width` x `height` pixels as PNG.

    `output` and a `decision` about embeddings are there if the service embeds; see `Answer.kind`.
    """

    path: Path
    name: str
    url: str
    width: int
    height: int
    request: Request
    answer: Answer
    output: Embedding | None
    decision: Decision
    alignment: Alignment | None
    limits: Limits

    @property
    def answers(self) -> Answers:
        """What the service answers."""
        return "similarity" if self.answer.kind == "distance" else self.answer.kind

    @property
    def address(self) -> str:
        """The service."""
        return f"{self.url}{self.request.path}"

    @property
    def identity(self) -> str:
        """What the answer to some crops depends on. Secrets, and the names of their variables, are no part of it."""
        asked = asdict(replace(self.request, secrets=(), headers=()))
        open_headers = [header for header in self.request.headers if isinstance(header[1], str)]
        read = asdict(replace(self.answer, scale=None, again=()))
        scale = self.answer.scale
        span = None if scale is None else [scale.low, scale.high]
        output = None if self.output is None else asdict(self.output)
        return identity_of("json", self.address, [asked, open_headers, read, span, output, self.width, self.height])


Remote = OpenInference | Rekognition | JsonService


def read_remote(path: Path) -> Remote:
    """Read and check a `remote.toml`.

    Raises:
        InputError: the file cannot be read, or a value is not valid. The message names the key.
    """
    top = read_table(path, SCHEMA_VERSION)
    read: dict[Kind, Callable[[Table], Remote]] = {
        "open-inference": _read_open_inference,
        "rekognition": _read_rekognition,
        "json": _read_json,
    }
    remote = read[top.choice("kind", Kind)](top)
    top.done()
    return remote


def _read_open_inference(top: Table) -> OpenInference:
    url, protocol = _url(top, top.take("url", str)), top.choice("protocol", Protocol, "http")
    binary = top.take("binary", bool, False)
    if protocol == "grpc" and binary:
        raise top.fail("binary", "is only for HTTP; gRPC sends bytes anyway")
    if protocol == "grpc" and urlsplit(url).path:
        raise top.fail("url", "must have no path for gRPC; write https://host:port")
    return OpenInference(
        path=top.source,
        name=_text(top, "name"),
        url=url,
        protocol=protocol,
        binary=binary,
        model=_text(top, "model"),
        version=_text(top, "version", None),
        token_env=_text(top, "token_env", None),
        batch=read_number(top, "batch", int, 1, LARGEST_BATCH, 8),
        input=read_input(top.table("input")),
        output=read_output(top.table("output")),
        decision=read_decision(top.table("decision")),
        alignment=read_alignment(top.table("alignment")),
        limits=read_limits(top.table("limits")),
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
        scale=Scale("similarity", 0.0, 100.0, read_number(top, "threshold", float, 1e-6, 100.0)),
        alignment=read_alignment(top.table("alignment")),
        limits=read_limits(top.table("limits")),
    )
    size.done()
    return remote


def _read_json(top: Table) -> JsonService:
    url, size = _url(top, top.take("url", str)), top.table("input")
    answer = read_answer(top.table("answer"))
    embeds = answer.kind == "embedding"
    alone = Decision("service", 0.5, 1.0)  # true is at the distance 0, false at 1
    service = JsonService(
        path=top.source,
        name=_text(top, "name"),
        url=url,
        width=read_side(size, "width"),
        height=read_side(size, "height"),
        request=read_request(top.table("request"), answer.kind),
        answer=answer,
        output=_read_embedding(top.table("output")) if embeds else None,
        decision=read_decision(top.table("decision")) if embeds else answer.scale.decision if answer.scale else alone,
        alignment=read_alignment(top.table("alignment")),
        limits=read_limits(top.table("limits")),
    )
    size.done()
    return service


def _read_embedding(table: Table) -> Embedding:
    output = Embedding(read_number(table, "size", int, 1, _LARGEST_EMBEDDING), table.take("normalize", bool))
    table.done()
    return output


def _text(table: Table, key: str, default: Any = ...) -> Any:
    value = table.take(key, str, default)
    if value is not None and not value.strip():
        raise table.fail(key, "is empty")
    return value


def _url(table: Table, url: str) -> str:
    """Check an address. It must use https, unless it is on this machine or the file allows plain http."""
    allowed = table.take("allow_http", bool, False)
    # No message shows the address, because a password may be in it.
    if not (url.isascii() and url.isprintable()) or set(url) & set(' "<>\\^`{|}'):
        raise table.fail("url", "must have only ASCII characters that an address may have; percent-encode the others")
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise table.fail("url", "is not a valid address; write https://host or https://host:port") from error
    if parts.scheme not in ("http", "https") or not valid:
        raise table.fail("url", "must start with https:// and name a host")
    if "@" in url or "?" in url or "#" in url:
        raise table.fail("url", "must have no user, password, query or fragment; use token_env for a token")
    if parts.scheme == "http" and not allowed and not is_loopback(parts.hostname):
        raise table.fail(
            "url", f"sends faces to {parts.hostname} without encryption; use https, or set allow_http = true"
        )
    return url.rstrip("/")


def is_loopback(host: str | None) -> bool:
    """Return whether a host of an address is this machine itself. Names other than localhost are not looked up."""
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def identity_of(kind: Kind, address: str, reading: Any) -> str:
    """Return a text that changes with a service's kind and address, or with how its answers are made and read."""
    content = json.dumps(reading, sort_keys=True).encode()
    return f"{kind} {address} {hashlib.sha256(content).hexdigest()}"


def model_path(remote: OpenInference) -> str:
    """Return the part of the address that names the model and its version."""
    version = "" if remote.version is None else f"/versions/{quote(remote.version, safe='')}"
    return f"/v2/models/{quote(remote.model, safe='')}{version}"


def token(remote: OpenInference) -> str | None:
    """Read the bearer token from the environment. Return None if `token_env` is not set in the file.

    Raises:
        UnavailableError: the environment variable is not set.
        InputError: the token has characters that a header cannot contain. The message does not show the token.
    """
    if remote.token_env is None:
        return None
    return read_secret(remote.path, "token_env", remote.token_env)
