"""Mutated answers of servers: bytes, HTTP and JSON, for the exchange and for both protocols of remote verifiers."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from toolkit.errors import SixpixelsError, UnavailableError
from toolkit.verifiers.manifest import Decision, Input, Output
from toolkit.verifiers.remote import wire
from toolkit.verifiers.remote.calls import Caller, TransientError
from toolkit.verifiers.remote.config import OpenInference, Rekognition
from toolkit.verifiers.remote.exchange import Server, bearer
from toolkit.verifiers.remote.limits import Limits
from toolkit.verifiers.remote.open_inference import open_inference
from toolkit.verifiers.remote.rekognition import RekognitionService
from toolkit.verifiers.remote.scale import Scale

Target = tuple[str, Callable[[np.random.Generator], bytes], Callable[[bytes, Path], None]]

TOKEN = "s3cret-T0ken/of+the-exchange=="
_URL = "http://127.0.0.1:9"
_LIMITS = Limits(calls_per_second=1e4, max_calls=10_000_000, timeout=5.0, retries=0)
_LONGEST_MESSAGE = 1000
_LARGEST = 150_000  # both ends of a pair of sockets are in this thread: more does not fit between them
_SIDE = 2


class LeakError(Exception):
    """A message shows what it must not show."""


def plain_answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def _chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n1;a=b\r\n \r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), body)


METADATA = {
    "name": "m",
    "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, _SIDE, _SIDE]}],
    "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, 2]}],
}
INFERRED = {"outputs": [{"name": "embedding", "datatype": "FP32", "shape": [1, 2], "data": [0.25, -1]}]}
MATCHED = {"FaceMatches": [{"Similarity": 99.5, "Face": {}}], "UnmatchedFaces": [], "SourceImageFace": {}}
REFUSED = {"__type": "com.amazonaws#AccessDeniedException", "message": "no"}
DOCUMENTS: tuple[Any, ...] = (METADATA, INFERRED, MATCHED, REFUSED, {"error": TOKEN}, [], "x", 1, None)

SEEDS = (
    plain_answer(b"{}"),
    _chunked(b'{"a": [1, 2.5, null]}'),
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + plain_answer(json.dumps(METADATA).encode()),
    b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(INFERRED).encode(),
    plain_answer(f"you sent Bearer {TOKEN}".encode(), b"400 Bad Request"),
    b"HTTP/1.1 429 Slow\r\nRetry-After: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 None\r\n\r\n",
)
PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b"\x1b[31m", b"\xe2\x80\xae", b":", b" ", b"\t", b"HTTP/1.1 200 OK\r\n", b"0\r\n\r\n",
    b"Content-Length: 2\r\n", b"Content-Length: -1\r\n", b"Content-Length: " + b"9" * 5000 + b"\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: upgrade\r\n", b"ffffffffff\r\n",
    b"Content-Encoding: gzip\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"Retry-After: 99999999999\r\n", b"Retry-After: Mon, 01 Jan 99999999999 00:00:00 +9999\r\n", TOKEN.encode(),
    b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 3000, b'{"a":' * 3000, b"1" * 5000, b"NaN", b"-Infinity", b"1e999",
    b'"\\ud800"',
)  # fmt: skip


def bytes_of_http(rng: random.Random) -> bytes:
    """An answer with a few bytes changed, taken out, put in or doubled, or with the end of another one."""
    content = bytearray(rng.choice(SEEDS))
    for _ in range(rng.choice((1, 1, 2, 3, 8, 30))):
        at, to = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        to = min(to, at + rng.choice((1, 4, 40)))
        kind = rng.randrange(6)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[at:to]
        elif kind == 2:
            content[at:at] = rng.choice(PIECES)
        elif kind == 3:
            content[at:at] = bytes(content[at:to]) * rng.choice((1, 2, 100))
        elif kind == 4:
            content[at:] = rng.choice(SEEDS)[at:]
        else:
            content[at:to] = rng.randbytes(rng.choice((1, 4, 40)))
    return bytes(content[:_LARGEST])


def parts_of_http(rng: random.Random) -> bytes:
    """An answer that is put together from parts of which some are odd."""
    number = b"9" * rng.choice((1, 3, 20, 5000))
    version = rng.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/9.9", b"http/1.1", b""))
    status = rng.choice(
        (b"200", b"200", b"200", b"204", b"304", b"301", b"401", b"404", b"429", b"503", b"999", number)
    )
    reason = rng.choice((b"OK", b"", TOKEN.encode(), b"\x1b[2J", b"x" * 9000))
    lines = [rng.choice(PIECES).strip(b"\r\n") for _ in range(rng.choice((0, 0, 1, 3)))]
    body = json.dumps(json_tree(rng)).encode() if rng.random() < 0.7 else rng.choice(PIECES) * rng.choice((1, 10))
    how = rng.randrange(4)
    if how == 0:
        lines.append(b"Content-Length: %s" % rng.choice((b"%d" % len(body), b"%d" % (len(body) + 9), b"1", number)))
    elif how == 1:
        lines.append(b"Transfer-Encoding: chunked")
        size = rng.choice((b"%x" % len(body), b"%x" % (len(body) // 2), b"-1", b"0x2", number, b""))
        end = rng.choice((b"0\r\n\r\n", b"0\r\nX: 1\r\n\r\n", b"0\r\n" + b"X: 1\r\n" * 9000, b"", b"00000\r\n\r\n"))
        body = size + rng.choice((b"", b";a=b", b";" + b"x" * 40_000)) + b"\r\n" + body + b"\r\n" + end
    rng.shuffle(lines)
    before = b"HTTP/1.1 103 Early\r\nX: 1\r\n\r\n" * rng.choice((0, 0, 0, 1, 9, 11, 500))
    return (before + b" ".join((version, status, reason)) + b"\r\n" + b"\r\n".join([*lines, b"", body]))[:_LARGEST]


def json_tree(rng: random.Random) -> Any:
    """A document of a protocol in which some values are others."""
    tree = json.loads(json.dumps(rng.choice(DOCUMENTS[:4] * 3 + DOCUMENTS)))
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        tree = _changed(tree, rng)
    return tree


def _changed(tree: Any, rng: random.Random) -> Any:
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(sorted(tree))
        kind = rng.randrange(8)
        if kind == 0:
            return {other: value for other, value in tree.items() if other != key}
        if kind == 1:
            return {**tree, rng.choice(("name", "shape", "\x1b", TOKEN, "x" * 3000)): tree[key]}
        return {**tree, key: _changed(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        at = rng.randrange(len(tree))
        value = _changed(tree[at], rng)
        # Lists in lists would grow without end.
        times = rng.choice((0, 1, 1, 1, 2, 2 if isinstance(value, list | dict) else 300))
        return [*tree[:at], *[value] * times, *tree[at + 1 :]]
    return odd(rng)


def odd(rng: random.Random) -> Any:
    """A value that a reader may not expect."""
    nested: Any = 1
    for _ in range(rng.choice((1, 60, 900))):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    return rng.choice((
        None, True, False, 0, -1, 1, 10**9, 10**18, 2**63, 10**400, -(10**400), 0.5, -0.0, 1e308, float("nan"), -1e999,
        "", "1", "FP32", "m", "\x1b[31m", "\u202e", "\0", "\ud800", TOKEN, "x" * 9000, [], {}, [[]], [1, 2], [[1, 2]],
        [1] * 3000, nested,
    ))  # fmt: skip


def bytes_of_json(rng: random.Random) -> bytes:
    """The text of such a document, of which bytes may be others as well."""
    content = bytearray(json.dumps(json_tree(rng), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"))
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        at = rng.randrange(len(content) + 1)
        content[at : at + rng.randrange(3)] = rng.choice((*PIECES, rng.randbytes(2)))
    return bytes(content[:_LARGEST])


def made_by(*makers: Callable[[random.Random], bytes]) -> Callable[[np.random.Generator], bytes]:
    """Make a mutant by one of some ways. Python's generator is faster for single choices."""

    def make(rng: np.random.Generator) -> bytes:
        own = random.Random(int(rng.integers(1 << 62)))
        return own.choice(makers)(own)

    return make


@contextmanager
def answering(*answers: bytes) -> Iterator[None]:
    """Connections of the exchange find these answers, one each, on the other end of a pair of sockets."""
    rest = list(answers)

    def connect(*_: object) -> socket.socket:
        client, server = socket.socketpair()
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _LARGEST)
        with server:
            server.sendall(rest.pop(0))
            server.shutdown(socket.SHUT_WR)
            held.append(server.dup())
        return client

    held: list[socket.socket] = []
    try:
        with mock.patch.object(wire, "connect", connect):
            yield
    finally:
        for end in held:
            end.close()


@contextmanager
def one_line() -> Iterator[None]:
    """Pass on errors of the toolkit. Each must be one short line without secrets."""
    try:
        yield
    except (SixpixelsError, TransientError) as error:
        text = str(error)
        if not text.isprintable() or len(text) > _LONGEST_MESSAGE or TOKEN.lower()[:9] in text.lower():
            raise LeakError(ascii(text[:2000])) from error
        if isinstance(error, TransientError):
            raise UnavailableError(text) from error
        raise


def run_exchange(content: bytes, folder: Path) -> None:
    """Ask a server for JSON, which answers with `content`."""
    del folder
    with answering(content), one_line():
        Server(_URL, 5.0, bearer(TOKEN)).exchange("/infer", {"a": 1})


def _remote(*, binary: bool = False) -> OpenInference:
    return OpenInference(
        path=Path("remote.toml"), name="far", url=_URL, model="m", version=None, token_env="FUZZ_TOKEN",
        protocol="http", binary=binary, batch=8,
        input=Input("input", _SIDE, _SIDE, "NCHW", "RGB", 0.0, 1.0, "fixed", (0.0,) * 3, (1.0,) * 3),
        output=Output("embedding", 2, normalize=False), decision=Decision("euclidean", 0.1, 1.0), alignment=None,
        limits=_LIMITS,
    )  # fmt: skip


def _open_inference(metadata: bytes, inferred: bytes) -> None:
    caller = Caller("remote.toml", _LIMITS, np.random.default_rng(0), sleep=lambda _: None)
    with mock.patch.dict(os.environ, FUZZ_TOKEN=TOKEN), answering(plain_answer(b""), metadata, inferred), one_line():
        found = open_inference(_remote(), caller).embeddings(np.zeros((1, _SIDE, _SIDE, 3), np.float32))
    if found.shape != (1, 2) or not np.isfinite(found).all():
        raise LeakError(f"embeddings {found}")


def run_metadata(content: bytes, folder: Path) -> None:
    """Describe a model with `content`."""
    del folder
    _open_inference(plain_answer(content), plain_answer(json.dumps(INFERRED).encode()))


def run_inferred(content: bytes, folder: Path) -> None:
    """Answer a batch of faces with `content`."""
    del folder
    _open_inference(plain_answer(json.dumps(METADATA).encode()), plain_answer(content))


@cache
def _service() -> RekognitionService:
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": TOKEN, "AWS_SESSION_TOKEN": TOKEN}
    with mock.patch.dict(
        os.environ, {**keys, "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    ):
        os.environ.pop("AWS_PROFILE", None)
        scale = Scale("similarity", 0.0, 100.0, 80.0)
        remote = Rekognition(Path("remote.toml"), "far", "eu-west-1", _URL, _SIDE, _SIDE, scale, None, _LIMITS)
        return RekognitionService(remote)


def run_rekognition(content: bytes, folder: Path) -> None:
    """Compare two faces; the service answers with `content`, with a status that depends on its length."""
    del folder
    status = (b"200 OK", b"200 OK", b"400 Bad", b"403 No", b"503 Busy")[len(content) % 5]
    crop = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    with answering(plain_answer(content, status)), one_line():
        found = _service().compare(crop, crop)
    if not (np.isnan(found) or 0 <= found <= 100):
        raise LeakError(f"distance {found}")


TARGETS: list[Target] = [
    ("http", made_by(bytes_of_http, parts_of_http), run_exchange),
    ("open-inference-metadata", made_by(bytes_of_json), run_metadata),
    ("open-inference-answer", made_by(bytes_of_json), run_inferred),
    ("rekognition", made_by(bytes_of_json), run_rekognition),
]
