"""One JSON exchange over HTTP with an untrusted server: no redirects, limited size, limited time."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from toolkit.errors import InputError, UnavailableError
from toolkit.verifiers.remote.calls import TransientError

# For comparison, a batch of 256 embeddings with 2,048 numbers is 13 MB of text.
LARGEST_ANSWER = 16 << 20
_BLOCK = 1 << 16
_SHOWN = 200


@dataclass(frozen=True)
class Server:
    """A server.

    Attributes:
        url: the address.
        timeout: the timeout of a whole exchange in seconds.
        token: the bearer token to send; None sends none.
    """

    url: str
    timeout: float
    token: str | None = None

    def exchange(self, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """GET `path`, or POST a JSON document to it. Return the JSON object in the answer.

        Redirects are not followed, because faces and tokens must go to the given address only. Proxies are not used.

        Raises:
            TransientError: there is no answer in time, the connection breaks, or the status is 429 or 5xx.
            UnavailableError: the server denies access with status 401 or 403, or its certificate is not valid.
            InputError: the answer is too large, not a JSON object, a redirect or another error.
        """
        status, headers, body = self._send(path, None if document is None else json.dumps(document).encode())
        where = f"{self.url}{path}"
        if status == 429 or status >= 500:
            raise TransientError(f"the server at {where} says {status}", _retry_after(headers.get("Retry-After")))
        _check_refusal(status, where)
        if not 200 <= status < 300:
            raise InputError(f"{where}: the server says {status} ({_shown(body)})")
        return _object(body, where)

    def ready(self, path: str) -> None:
        """GET `path` and check the status only.

        Raises:
            TransientError: the server is not ready, with any other status; or as in `exchange`.
            UnavailableError: as in `exchange`.
            InputError: as in `exchange`.
        """
        status, headers, body = self._send(path, None)
        where = f"{self.url}{path}"
        _check_refusal(status, where)
        if not 200 <= status < 300:
            reason = f"the server at {where} is not ready ({status} {_shown(body)})"
            raise TransientError(reason, _retry_after(headers.get("Retry-After")))

    def _send(self, path: str, body: bytes | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        deadline = time.monotonic() + self.timeout
        parts, where = urlsplit(self.url), f"{self.url}{path}"
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=self.timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self.timeout)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request("GET" if body is None else "POST", f"{parts.path}{path}", body, headers)
            response = connection.getresponse()
            return response.status, response.headers, _read(response, where, deadline)
        except ssl.SSLCertVerificationError as error:
            raise UnavailableError(
                f"{where}: the server's certificate is not valid ({error.verify_message})"
            ) from error
        except TimeoutError as error:
            raise TransientError(f"no answer from {where} in {self.timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise TransientError(f"no answer from {where} ({reason})") from error
        finally:
            connection.close()


def _check_refusal(status: int, where: str) -> None:
    if status in (401, 403):
        raise UnavailableError(
            f"{where}: the server denies access ({status}); check the token in the variable that token_env names"
        )
    if 300 <= status < 400:
        raise InputError(
            f"{where}: the server redirects ({status}), but redirects are not followed; set url to the final address"
        )


def _read(response: http.client.HTTPResponse, where: str, deadline: float) -> bytes:
    """Read the body of an answer.

    Raises:
        InputError: the body is too large. If the server announces the length, the body is not read at all.
        TimeoutError: the deadline has passed.
        IncompleteRead: the body is shorter than announced.
    """
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > LARGEST_ANSWER:
        raise InputError(f"{where}: the answer has {announced} bytes; at most {LARGEST_ANSWER} are allowed")
    body = bytearray()
    # A server that sends single bytes slowly never exceeds the timeout of one read, so check the deadline as well.
    while block := response.read1(_BLOCK):
        body += block
        if len(body) > LARGEST_ANSWER:
            raise InputError(f"{where}: the answer has more than {LARGEST_ANSWER} bytes, which is the limit")
        if time.monotonic() > deadline:
            raise TimeoutError
    if announced.isdecimal() and len(body) < int(announced):
        raise http.client.IncompleteRead(b"", int(announced) - len(body))
    return bytes(body)


def _object(body: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: the answer is not JSON ({_shown(body)})") from error
    if not isinstance(document, dict):
        raise InputError(f"{where}: the answer is not a JSON object ({_shown(body)})")
    return document


def _shown(body: bytes) -> str:
    """Return the beginning of an answer as printable text."""
    text = "".join(c if c.isprintable() else " " for c in body[:_SHOWN].decode("utf-8", "replace"))
    return " ".join(text.split())


def _retry_after(value: str | None) -> float | None:
    """Parse a Retry-After header, which has a number of seconds or a date (RFC 9110, section 10.2.3).

    Returns:
        The seconds to wait; None if the header is missing or not valid.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
