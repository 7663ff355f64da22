"""A remote verifier that is any JSON service: a table says where the images go and where the answer is.

A body has several parts by RFC 7578 (multipart/form-data).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, UnavailableError
from toolkit.pixels import Images, to_8bit
from toolkit.plain import parse_json
from toolkit.verifiers.edge import of_unit_length
from toolkit.verifiers.remote import wire
from toolkit.verifiers.remote.calls import TransientError
from toolkit.verifiers.remote.config import JsonService
from toolkit.verifiers.remote.environment import read_secret
from toolkit.verifiers.remote.exchange import Server, Signed, is_transient, retry_after
from toolkit.verifiers.remote.images import png
from toolkit.verifiers.remote.json_table import Secret, When, steps_of
from toolkit.verifiers.remote.pointer import MISSING, find, put
from toolkit.verifiers.remote.tensors import LARGEST_NUMBER


class _Asked:
    """Sends images to the service, and finds the value of the answer."""

    def __init__(self, remote: JsonService) -> None:
        """Read the secrets from the environment. This does not call the service.

        Raises:
            UnavailableError: a secret is not set.
            InputError: a secret has characters that a header cannot contain.
        """
        self._remote, self._values = remote, dict[str, str]()
        self._headers = {
            name: self._secret(f"headers.{name}", value) if isinstance(value, Secret) else value
            for name, value in remote.request.headers
        }
        self._constants = {key: self._secret(f"constants.{key}", value) for key, value in remote.request.secrets}
        signed = Signed(self._headers, tuple(self._values.values()))
        self._server = Server(remote.url, remote.limits.timeout, lambda *_: signed)

    def _secret(self, key: str, secret: Secret) -> str:
        value = self._values[secret.env] = read_secret(self._remote.path, key, secret.env)
        return f"{secret.prefix}{value}"

    def value(self, *crops: NDArray[np.uint8]) -> Any:
        """Send crops by one call. Return the value that the answer has; None if the service finds no face.

        Errors are those of `service.Comparer.compare`.
        """
        remote = self._remote
        body, kind = self._body([png(crop) for crop in crops])
        answer = self._server.send(remote.request.path, body, {"Content-Type": kind}, remote.request.method)
        where, document = remote.address, _document(answer)
        if any(_fits(rule, answer, document) for rule in remote.answer.no_face):
            return None
        said = f"{answer.status} {self._server.shown(answer.body)}"
        if is_transient(answer) or any(_fits(rule, answer, document) for rule in remote.answer.again):
            raise TransientError(f"the server at {where} says {said}", retry_after(answer))
        if answer.status in (401, 403):
            raise UnavailableError(f"{where}: the server denies access ({said}); check the secrets in the environment")
        if not 200 <= answer.status < 300:
            raise InputError(f"{where}: the server rejects the request ({said})")
        found = MISSING if document is MISSING else find(document, remote.answer.pointer)
        if found is MISSING or found is None:
            raise self.problem(document, "is missing")
        return found

    def problem(self, value: Any, what: str) -> InputError:
        """Return an error about the value. The caller raises it."""
        pointer = "/".join(("", *self._remote.answer.pointer))
        shown = "no JSON" if value is MISSING else self._server.shown(value)
        return InputError(f"{self._remote.address}: {self._remote.answer.kind} {pointer} {what} ({shown})")

    def _body(self, images: list[bytes]) -> tuple[bytes, str]:
        """Return the body of a request, and its type."""
        request = self._remote.request
        if request.body == "image":
            return images[0], "image/png"
        content: dict[str, Any] = {**parse_json(request.constants, "the constants"), **self._constants}
        if request.body == "multipart":
            return _multipart(content, dict(zip(request.images, images, strict=True)))
        before = "data:image/png;base64," if request.form == "data-uri" else ""
        for place, image in zip(request.images, images, strict=True):
            put(content, steps_of(place, request.body), before + base64.b64encode(image).decode())
        return json.dumps(content).encode(), "application/json"


class JsonComparer:
    """A JSON service that compares two crops. See `service.Comparer`.

    Attributes:
        remote: the description of the remote verifier.
        answers: what the service answers.
    """

    def __init__(self, remote: JsonService) -> None:
        """Prepare the requests. Errors are those of `open_service`."""
        self.remote = remote
        self.answers: Literal["similarity", "decision"] = (
            "decision" if remote.answer.kind == "decision" else "similarity"
        )
        self._asked = _Asked(remote)

    def compare(self, probe: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        """Compare two crops (H, W, 3), RGB, by one call. See `service.Comparer`."""
        found = self._asked.value(probe, reference)
        if found is None:
            return math.nan
        scale = self.remote.answer.scale
        if scale is None:
            if not isinstance(found, bool):
                raise self._asked.problem(found, "must be true or false")
            return 0.0 if found else 1.0
        distance = scale.distance(found) if type(found) in (int, float) else None
        if distance is None:
            raise self._asked.problem(found, f"must be a number from {scale.low:g} to {scale.high:g}")
        return distance


class JsonEmbedder:
    """A JSON service that embeds one crop. See `service.Embedder`.

    Attributes:
        remote: the description of the remote verifier.
        answers: what the service answers.
        most: the largest number of crops in one call.
    """

    answers: Literal["embedding"] = "embedding"
    most = 1

    def __init__(self, remote: JsonService, size: int, *, normalize: bool) -> None:
        """Prepare the requests. Errors are those of `open_service`."""
        self.remote = remote
        self._size, self._normalize, self._asked = size, normalize, _Asked(remote)

    def embeddings(self, crops: Images) -> NDArray[np.float32]:
        """Return the embedding (1, D) of a crop (1, H, W, 3), by one call. See `service.Embedder`.

        The service gets the crop with 8 bits.
        """
        expected = (1, self.remote.height, self.remote.width, 3)
        if crops.shape != expected:
            raise InputError(f"crops of shape {crops.shape} do not fit {self.remote.name}, which takes {expected}")
        found = self._asked.value(to_8bit(crops)[0])
        if found is None:
            return np.full((1, self._size), np.nan, np.float32)
        if (
            not isinstance(found, list)
            or len(found) != self._size
            or not all(type(number) in (int, float) and abs(number) <= LARGEST_NUMBER for number in found)
        ):
            raise self._asked.problem(found, f"must be a list of {self._size} numbers of float32")
        result = np.array([found], np.float32)
        return of_unit_length(result) if self._normalize else result


def json_service(remote: JsonService) -> JsonComparer | JsonEmbedder:
    """Prepare the requests of a JSON service. This does not call it. Errors are those of `open_service`."""
    if remote.output is None:
        return JsonComparer(remote)
    return JsonEmbedder(remote, remote.output.size, normalize=remote.output.normalize)


def _document(answer: wire.Answer) -> Any:
    """Return what an answer says in JSON, or `MISSING`. Proxies answer errors with pages."""
    try:
        return parse_json(answer.body, "the answer")
    except InputError:
        return MISSING


def _fits(rule: When, answer: wire.Answer, document: Any) -> bool:
    if rule.status not in (None, answer.status):
        return False
    if rule.pointer is None:
        return True
    found = MISSING if document is MISSING else find(document, rule.pointer)
    if rule.empty:
        return found is None or found in ([], {}, "")
    if rule.contains is not None:
        return isinstance(found, str) and rule.contains in found
    return found is not MISSING and rule.value is not None and _equal(found, parse_json(rule.value, "the rule"))


def _equal(found: Any, value: Any) -> bool:
    """In Python, true is 1."""
    return isinstance(found, bool) == isinstance(value, bool) and bool(found == value)


def _multipart(texts: Mapping[str, str], images: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Return a body of parts, and its type. The names of parts have only characters that need no escapes."""
    boundary, parts = uuid4().hex, []
    for name, text in texts.items():
        parts.append((f'form-data; name="{name}"\r\n', text.encode()))
    for name, image in images.items():
        parts.append((f'form-data; name="{name}"; filename="{name}.png"\r\nContent-Type: image/png\r\n', image))
    lines = [f"--{boundary}\r\nContent-Disposition: {head}\r\n".encode() + content for head, content in parts]
    return b"\r\n".join([*lines, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"
