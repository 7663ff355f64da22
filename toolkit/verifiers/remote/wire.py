"""One HTTP/1.1 request and its answer, on a new connection, with one deadline for all of it.

The deadline covers names, connection, TLS, head, body and trailers, and also what comes before the answer. The
standard library has only timeouts of single reads, which a server that drips bytes never exceeds. Here h11 parses, and
every wait ends at the deadline.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import h11

_T = TypeVar("_T")
_BLOCK = 1 << 16
# The largest head, chunk head or trailers, in bytes.
_LARGEST_HEAD = 1 << 15
# A server may announce an answer, for example with "100 Continue", this many times.
_MOST_ANNOUNCED = 10


class MalformedError(Exception):
    """The answer is not HTTP/1.1, or it is larger than allowed. The message may quote the server."""


class Deadline:
    """A moment by which something must end."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, more than 0.

        Raises:
            TimeoutError: none are left.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


@dataclass(frozen=True)
class Answer:
    """An answer of a server.

    Attributes:
        status: the status, from 200.
        headers: the headers by name in lower case; of repeated ones the last.
        body: the body, as it was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(method: str, url: str, headers: Mapping[str, str], body: bytes, deadline: Deadline, largest: int) -> Answer:
    """Send a request to the server at `url`, and receive its answer. Redirects are not followed, proxies not used.

    Args:
        method: GET or POST.
        url: an http or https address.
        headers: the headers to send. Host, Content-Length and Connection are added.
        body: the body to send; empty sends none.
        deadline: when all of this must have ended.
        largest: the largest body that is received, in bytes.

    Raises:
        MalformedError: the answer is not HTTP/1.1, or too large.
        ssl.SSLCertVerificationError: the server's certificate is not valid.
        TimeoutError: the deadline has passed.
        OSError: the server cannot be reached, or the connection breaks.
    """
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    place = parts.netloc.rpartition("@")[2] if parts.port not in (None, default) else f"{_bracketed(parts.hostname)}"
    lines = {"Host": place, "Connection": "close", **headers}
    if body or method == "POST":
        lines["Content-Length"] = str(len(body))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    asked = h11.Request(method=method, target=target, headers=list(lines.items()))
    connection = connect(parts.hostname or "", parts.port or default, deadline)
    try:
        if parts.scheme == "https":
            connection.settimeout(deadline.left())
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
        return converse(connection, asked, body, deadline, largest)
    finally:
        connection.close()


def converse(connection: socket.socket, asked: h11.Request, body: bytes, deadline: Deadline, largest: int) -> Answer:
    """Send a request on an open connection, and receive its answer. Arguments and errors are those of `request`."""
    machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
    parts = (asked, h11.Data(data=body), h11.EndOfMessage()) if body else (asked, h11.EndOfMessage())
    _send(connection, b"".join(machine.send(part) or b"" for part in parts), deadline)
    announced, answer, received = 0, None, bytearray()
    for event in _events(machine, connection, deadline):
        if isinstance(event, h11.InformationalResponse):
            announced += 1
            if announced > _MOST_ANNOUNCED:
                raise MalformedError(f"the server announces an answer more than {_MOST_ANNOUNCED} times")
        elif isinstance(event, h11.Response):
            answer = event
            _check_length(event, largest)
        elif isinstance(event, h11.Data):
            received += event.data
            if len(received) > largest:
                raise MalformedError(f"the answer has more than {largest} bytes, which is the limit")
        elif isinstance(event, h11.EndOfMessage) and answer is not None:
            names = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
            return Answer(answer.status_code, names, bytes(received))
        else:
            break
    raise ConnectionError("the server ended the connection without an answer")


def _events(machine: h11.Connection, connection: socket.socket, deadline: Deadline) -> Iterator[object]:
    """Receive bytes until the deadline, and yield what h11 finds in them. Errors are those of `request`."""
    ended = False
    while True:
        deadline.left()
        try:
            event = machine.next_event()
        except h11.RemoteProtocolError as error:
            if ended:
                raise ConnectionError("the connection ended before the answer did") from error
            raise MalformedError(f"the answer is not HTTP/1.1: {error}") from error
        if event is not h11.NEED_DATA:
            yield event
            continue
        connection.settimeout(deadline.left())
        block = connection.recv(_BLOCK)
        machine.receive_data(block)
        ended = not block


def within(deadline: Deadline, call: Callable[[], _T]) -> _T:
    """Run a call that cannot be interrupted. It goes on in its own thread if the deadline passes.

    Raises:
        TimeoutError: the deadline has passed.
    """
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - the caller gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(deadline.left())


def _bracketed(host: str | None) -> str:
    return f"[{host}]" if ":" in (host or "") else host or ""


def connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Open a connection. Every address of the host gets its share of the time that is left.

    Raises:
        OSError: no address answers in time, or the host has none.
    """
    try:
        found = within(deadline, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError as error:  # a label of more than 63 characters
        raise OSError(f"{host} is not the name of a host") from error
    problem: OSError = OSError(f"{host} has no address")
    for i, (family, kind, protocol, _, address) in enumerate(found):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(deadline.left() / (len(found) - i))
            connection.connect(address)
        except OSError as error:
            connection.close()
            problem = error
        else:
            return connection
    raise problem


def _send(connection: socket.socket, content: bytes, deadline: Deadline) -> None:
    rest = memoryview(content)
    while rest:
        connection.settimeout(deadline.left())
        rest = rest[connection.send(rest[:_BLOCK]) :]


def _check_length(response: h11.Response, largest: int) -> None:
    """Refuse a body that is announced as too large before it is received."""
    for name, value in response.headers:
        if name == b"content-length" and int(value) > largest:  # h11 allows at most 20 digits
            raise MalformedError(f"the answer has {int(value)} bytes; at most {largest} are allowed")
