"""One JSON exchange over HTTP with an untrusted server: no redirects, limited size, limited time, no secrets shown."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from toolkit.errors import InputError, UnavailableError
from toolkit.plain import parse_json
from toolkit.verifiers.remote.calls import TransientError
from toolkit.verifiers.remote.redaction import Secrets
from toolkit.verifiers.remote.wire import Answer, Deadline, MalformedError, request

# For comparison, a batch of 256 embeddings with 2,048 numbers is 13 MB of text.
LARGEST_ANSWER = 16 << 20
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}


@dataclass(frozen=True)
class Signed:
    """How a request proves who sends it: the headers to add, and the secrets in them that nobody else may see."""

    headers: Mapping[str, str]
    secrets: tuple[str, ...]


# Signs a request: its method, address, headers and body.
Sign = Callable[[str, str, Mapping[str, str], bytes], Signed]


def bearer(token: str | None) -> Sign:
    """Return the signature of a bearer token; of nothing if it is None."""
    signed = Signed({}, ()) if token is None else Signed({"Authorization": f"Bearer {token}"}, (token,))
    return lambda *_: signed


class Server:
    """A server. Every text of it goes through `shown` before it becomes a part of a message.

    Several threads may use it at once. Each remembers the secrets of its own last request.
    """

    def __init__(self, url: str, timeout: float, sign: Sign) -> None:
        """Remember the address. This does not call the server.

        Args:
            url: the address.
            timeout: the timeout of a whole exchange in seconds, from the name of the host to the last trailer.
            sign: signs each request.
        """
        self.url = url
        self._timeout, self._sign = timeout, sign
        self._own = threading.local()
        # For a thread that has sent nothing itself.
        self._last = Secrets(())

    def shown(self, value: object) -> str:
        """Return a text or value of the server as one short, printable line without the secrets of the last request.

        The last request is that of this thread; if it has sent none, that of any thread.
        """
        secrets: Secrets = getattr(self._own, "secrets", self._last)
        return secrets.shown(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))

    def exchange(self, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """GET `path`, or POST a JSON document to it. Return the JSON object in the answer.

        Redirects are not followed, because faces and tokens must go to the given address only. Proxies are not used.

        Raises:
            TransientError: there is no answer in time, the connection breaks, or the status is 429 or 5xx.
            UnavailableError: the server denies access with status 401 or 403, or its certificate is not valid.
            InputError: the answer is not HTTP, too large, not a JSON object, a redirect or another error.
        """
        answer = self.accepted(path, None if document is None else json.dumps(document).encode())
        return self.read(answer, f"{self.url}{path}")

    def accepted(self, path: str, body: bytes | None, headers: Mapping[str, str] | None = None) -> Answer:
        """Do as `send`, and return the answer, whose status means success.

        Raises:
            TransientError: as in `exchange`.
            UnavailableError: as in `exchange`.
            InputError: the answer is not HTTP, too large, a redirect or another error.
        """
        answer, where = self.send(path, body, headers), f"{self.url}{path}"
        if is_transient(answer):
            raise TransientError(f"the server at {where} says {answer.status}", retry_after(answer))
        _check_refusal(answer, where)
        if not 200 <= answer.status < 300:
            raise InputError(f"{where}: the server says {answer.status} ({self.shown(answer.body)})")
        return answer

    def ready(self, path: str) -> None:
        """GET `path` and check the status only.

        Raises:
            TransientError: the server is not ready, with any other status; or as in `exchange`.
            UnavailableError: as in `exchange`.
            InputError: as in `exchange`.
        """
        answer = self.send(path, None)
        where = f"{self.url}{path}"
        _check_refusal(answer, where)
        if not 200 <= answer.status < 300:
            reason = f"the server at {where} is not ready ({answer.status} {self.shown(answer.body)})"
            raise TransientError(reason, retry_after(answer))

    def send(
        self, path: str, body: bytes | None, headers: Mapping[str, str] | None = None, method: str = "POST"
    ) -> Answer:
        """GET `path`, or send `body` to it. Return the answer with any status but a redirect.

        Args:
            path: the part of the address after `url`.
            body: the body to send; None sends a GET.
            headers: headers that are added to those of a JSON exchange, or replace them.
            method: the method that sends a body, POST or PUT.

        Raises:
            TransientError: there is no answer in time, or the connection breaks.
            UnavailableError: the server's certificate is not valid.
            InputError: the answer is not HTTP, too large, or a redirect.
        """
        method, where = "GET" if body is None else method, f"{self.url}{path}"
        sent = {**_HEADERS, **(headers or {})}
        signed = self._sign(method, where, sent, body or b"")
        self._own.secrets = self._last = Secrets(signed.secrets)
        deadline = Deadline(self._timeout)
        try:
            answer = request(method, where, {**sent, **signed.headers}, body or b"", deadline, LARGEST_ANSWER)
        except ssl.SSLCertVerificationError as error:
            raise UnavailableError(
                f"{where}: the server's certificate is not valid ({self.shown(error.verify_message)})"
            ) from error
        except TimeoutError as error:
            raise TransientError(f"no answer from {where} in {self._timeout:g} s") from error
        except OSError as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise TransientError(f"no answer from {where} ({self.shown(reason)})") from error
        except MalformedError as error:
            raise InputError(f"{where}: {self.shown(error)}") from error
        if 300 <= answer.status < 400:
            raise InputError(
                f"{where}: the server redirects ({answer.status}), but redirects are not followed; "
                "set url to the final address"
            )
        return answer

    def read(self, answer: Answer, where: str) -> dict[str, Any]:
        """Return the JSON object in an answer.

        Raises:
            InputError: there is none.
        """
        try:
            document = parse_json(answer.body, "the answer")
        except InputError as error:
            raise InputError(f"{where}: {self.shown(error)} ({self.shown(answer.body)})") from error
        if not isinstance(document, dict):
            raise InputError(f"{where}: the answer is not a JSON object ({self.shown(answer.body)})")
        return document


def is_transient(answer: Answer) -> bool:
    """Return whether the status means "try again later"."""
    return answer.status == 429 or answer.status >= 500


def retry_after(answer: Answer) -> float | None:
    """Parse the header Retry-After, which has a number of seconds or a date (RFC 9110, section 10.2.3).

    Returns:
        The seconds to wait; None if the header is missing or not valid.
    """
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
        return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):  # the year may have any number of digits
        return None


def _check_refusal(answer: Answer, where: str) -> None:
    if answer.status in (401, 403):
        raise UnavailableError(
            f"{where}: the server denies access ({answer.status}); check the token in the variable that token_env names"
        )
