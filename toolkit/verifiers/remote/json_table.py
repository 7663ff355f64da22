"""The tables `[request]` and `[answer]` of a JSON service: where the images go, and where the answer is.

Reading them needs no network. Secrets are named here, and read when the service is opened.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from toolkit.plain import parse_json
from toolkit.tables import Table
from toolkit.verifiers.remote.pointer import MISSING, find, parse_pointer, put
from toolkit.verifiers.remote.scale import Scale

Body = Literal["json", "multipart", "image"]
Form = Literal["base64", "data-uri"]
Method = Literal["POST", "PUT"]
Answered = Literal["similarity", "distance", "decision", "embedding"]
Steps = tuple[str, ...]

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_.\[\]-]{1,100}", re.ASCII)
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]{0,100}", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9\-._~%!$&'()*+,;=:@/?]{0,1000}", re.ASCII)
# The exchange sets these itself.
_OWN = {
    "host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "accept-encoding", "te",
    "upgrade", "trailer", "expect",
}  # fmt: skip
# Names of what must not lie in a file.
_SECRET = re.compile(r"^(proxy-)?auth|^cookie|(key|token|secret|password|credentials?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Secret:
    """A secret of a request: the environment variable that holds it, and what stands before it."""

    env: str
    prefix: str = ""


@dataclass(frozen=True)
class Request:
    """A request of a JSON service.

    Attributes:
        method, path: of the request. The path may have a query.
        body: "json" puts the images into a document, "multipart" sends each as a part, "image" sends one as the body.
        form: how an image is written in a document.
        images: where the images go, the probe first: pointers, or the names of parts. One image for an embedding.
        constants: what else is in the document or in the parts: JSON, because values of dataclasses do not change.
        secrets: more of it, by key.
        headers: by name.
    """

    method: Method
    path: str
    body: Body
    form: Form
    images: tuple[str, ...]
    constants: str
    secrets: tuple[tuple[str, Secret], ...]
    headers: tuple[tuple[str, str | Secret], ...]


@dataclass(frozen=True)
class When:
    """A rule that recognizes an answer, by its status and by a value in it.

    Attributes:
        status: the status, or None for any.
        pointer: where the value is, or None.
        empty: whether the value must be null, or an empty list, object or text.
        value: what the value must be, as JSON; or None.
        contains: what the value, a text, must contain; or None.
    """

    status: int | None
    pointer: Steps | None
    empty: bool
    value: str | None
    contains: str | None


@dataclass(frozen=True)
class Answer:
    """What a JSON service answers.

    Attributes:
        kind: what it is.
        pointer: where it is.
        scale: what a similarity or a distance means; None for the others.
        no_face: answers of these kinds mean that the service finds no face.
        again: answers of these kinds mean "try again later".
    """

    kind: Answered
    pointer: Steps
    scale: Scale | None
    no_face: tuple[When, ...]
    again: tuple[When, ...]


def read_answer(table: Table) -> Answer:
    """Read an [answer] table.

    Raises:
        InputError: a value is not valid. The message names the key.
    """
    named = [kind for kind in get_args(Answered) if kind in table.rest]
    if len(named) != 1:
        raise table.fail(" or ".join(get_args(Answered)), "must be there exactly once: a JSON pointer to the answer")
    kind: Answered = named[0]
    pointer = _pointer(table, kind)
    scale = _read_scale(table, kind) if kind in ("similarity", "distance") else None
    result = Answer(kind, pointer, scale, _rules(table, "no_face"), _rules(table, "again"))
    table.done()
    return result


def _read_scale(table: Table, kind: Answered) -> Scale:
    low, high = table.numbers("range", 2)
    at_most = kind == "distance" and table.take("at_most", bool, False)
    rule: Any = "distance-at-most" if at_most else kind
    scale = Scale(rule, low, high, table.take("threshold", float))
    if high <= low:
        raise table.fail("range", f"must be [low, high] with low below high, not [{low}, {high}]")
    # Otherwise all pairs are "same", or none.
    if not (low <= scale.threshold <= high and 0 < scale.decision.threshold < scale.decision.maximum):
        raise table.fail("threshold", f"must lie inside of the range from {low:g} to {high:g}, not {scale.threshold!r}")
    return scale


def _rules(table: Table, key: str) -> tuple[When, ...]:
    return tuple(_rule(Table(table.source, f"answer.{key}", rule)) for rule in table.take(key, list, []))


def _rule(table: Table) -> When:
    status = table.take("status", int, None)
    pointer = None if "pointer" not in table.rest else _pointer(table, "pointer")
    if status is not None and not 200 <= status <= 599:
        raise table.fail("status", f"must be from 200 to 599, not {status}")
    value = table.take("value", object, None)
    if value is not None and not isinstance(value, str | int | float):
        raise table.fail("value", "must be a text, a number, true or false; for an empty list write empty = true")
    contains, empty = table.take("contains", str, None), table.take("empty", bool, False)
    asked = (value is not None) + (contains is not None) + empty
    if asked > 1 or (asked == 1) != (pointer is not None):
        raise table.fail("pointer", "needs one of value, contains and empty = true, and they need it")
    if status is None and pointer is None:
        raise table.fail("status", "or pointer must be there; otherwise every answer fits")
    if contains == "":
        raise table.fail("contains", "is empty")
    table.done()
    return When(status, pointer, empty, None if value is None else json.dumps(value), contains)


def read_request(table: Table, answered: Answered) -> Request:
    """Read a [request] table of a service that answers `answered`.

    Raises:
        InputError: a value is not valid. The message names the key.
    """
    body: Body = table.choice("body", Body, "json")
    form: Form = table.choice("image", Form, "base64") if body == "json" else "base64"
    method: Method = table.choice("method", Method, "POST")
    path = table.take("path", str)
    if not _PATH.fullmatch(path):
        raise table.fail("path", "must begin with / and have only characters that an address may have")
    keys = ("crop",) if answered == "embedding" else ("probe", "reference")
    if body == "image" and answered != "embedding":
        raise table.fail("body", 'can be "image" only for an embedding, because one body has one image')
    images = () if body == "image" else tuple(_place(table, key, body) for key in keys)
    constants, secrets = _constants(table.table("constants"), body)
    document = {**parse_json(constants, "the constants"), **dict.fromkeys((key for key, _ in secrets), "")}
    for key, place in zip(keys, images, strict=False):
        steps = steps_of(place, body)
        if find(document, steps) is not MISSING or not put(document, steps, key):
            raise table.fail(key, f"is no free place for an image: {place!r}")
    headers = tuple(_header(table.table("headers")))
    table.done()
    return Request(method, path, body, form, images, constants, secrets, headers)


def steps_of(place: str, body: Body) -> Steps:
    """The steps to the place of an image: a pointer into a document, or the name of a part."""
    return (parse_pointer(place) or ()) if body == "json" else (place,)


def _place(table: Table, key: str, body: Body) -> str:
    place: str = table.take(key, str)
    if body == "json" and not parse_pointer(place):
        raise table.fail(key, f'must be a JSON pointer, for example "/images/0", not {place!r}')
    if body == "multipart" and not _PART.fullmatch(place):
        raise table.fail(key, f"must be the name of a part: letters, digits and _.-[], not {place!r}")
    return place


def _constants(table: Table, body: Body) -> tuple[str, tuple[tuple[str, Secret], ...]]:
    """Read the constants: what is in the file, and what comes from the environment."""
    plain: dict[str, Any] = {}
    secrets: list[tuple[str, Secret]] = []
    if body == "image" and table.rest:
        raise table.fail(min(table.rest), "has no place in a body that is an image")
    for key in list(table.rest):
        value = table.take(key, object)
        if body == "multipart" and not _PART.fullmatch(key):
            raise table.fail(key, "must be the name of a part: letters, digits and _.-[]")
        if isinstance(value, dict) and "env" in value:
            secrets.append((key, _secret(Table(table.source, f"constants.{key}", value))))
        elif isinstance(value, str) and _SECRET.search(key):
            raise table.fail(key, 'looks like a secret; write { env = "NAME" } and set this environment variable')
        elif body == "multipart" and not isinstance(value, str):
            raise table.fail(key, 'must be a text in a part; write for example "true"')
        else:
            plain[key] = value
    try:
        return json.dumps(plain, sort_keys=True), tuple(secrets)
    except TypeError as error:
        raise table.fail(min(plain), "or another one is a date or a time, which JSON has not; write a text") from error


def _header(table: Table) -> list[tuple[str, str | Secret]]:
    headers: list[tuple[str, str | Secret]] = []
    for name in list(table.rest):
        value = table.take(name, object)
        if not _HEADER.fullmatch(name) or name.lower() in _OWN | {other.lower() for other, _ in headers}:
            raise table.fail(name, "is no header that can be set here, or it is there twice")
        if isinstance(value, dict):
            headers.append((name, _secret(Table(table.source, f"headers.{name}", value))))
        elif _SECRET.search(name):
            raise table.fail(name, 'looks like a secret; write { env = "NAME" } and set this environment variable')
        elif not isinstance(value, str) or not value.isascii() or not value.isprintable() or value != value.strip():
            raise table.fail(name, 'must be a text of printable ASCII characters, or { env = "NAME" }')
        else:
            headers.append((name, value))
    return headers


def _secret(table: Table) -> Secret:
    env, prefix = table.take("env", str), table.take("prefix", str, "")
    if not _VARIABLE.fullmatch(env):
        raise table.fail("env", "must be the name of an environment variable")
    if not (prefix.isascii() and prefix.isprintable()) or len(prefix) > 100 or prefix != prefix.lstrip():
        raise table.fail("prefix", 'must be a short text of printable ASCII characters, for example "Bearer "')
    table.done()
    return Secret(env, prefix)


def _pointer(table: Table, key: str) -> Steps:
    text = table.take(key, str)
    steps = parse_pointer(text)
    if steps is None:
        raise table.fail(key, f'must be a JSON pointer, for example "/faces/0/similarity", not {text!r}')
    return steps
