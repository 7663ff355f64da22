"""Mutated answers of services: the bytes of gRPC messages, binary tensors over HTTP, and the JSON of any service."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tests.fuzz.http_targets import (
    _LARGEST,
    _LIMITS,
    _SIDE,
    _URL,
    INFERRED,
    METADATA,
    PIECES,
    TOKEN,
    LeakError,
    Target,
    _remote,
    answering,
    json_tree,
    made_by,
    one_line,
    plain_answer,
)
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.remote import messages
from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.config import Embedding, JsonService
from toolkit.verifiers.remote.json_service import JsonComparer, JsonEmbedder
from toolkit.verifiers.remote.json_table import Answer, Request, Secret, When
from toolkit.verifiers.remote.open_inference import open_inference
from toolkit.verifiers.remote.redaction import Secrets
from toolkit.verifiers.remote.scale import Scale
from toolkit.verifiers.remote.tensors import check_model

_FLOATS = np.array([0.25, -1], "<f4").tobytes()
_CROP = np.zeros((1, _SIDE, _SIDE, 3), np.float32)


def _shown(value: object) -> str:
    return Secrets((TOKEN,)).shown(str(value))


def _message(kind: str, document: dict[str, Any]) -> bytes:
    content: bytes = messages._classes()[kind](**document).SerializeToString()
    return content


def _metadata(name: str) -> bytes:
    return _message("ModelMetadataResponse", {**METADATA, "name": name})


def _inferred(datatype: str) -> bytes:
    (tensor,) = INFERRED["outputs"]
    described = {key: tensor[key] for key in ("name", "shape")} | {"datatype": datatype}
    return _message("ModelInferResponse", {"outputs": [described], "raw_output_contents": [_FLOATS]})


def _listed() -> bytes:
    (tensor,) = INFERRED["outputs"]
    described = {key: tensor[key] for key in ("name", "shape", "datatype")}
    return _message("ModelInferResponse", {"outputs": [{**described, "contents": {"fp32_contents": tensor["data"]}}]})


def _changed_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((0, 1, 1, 2, 5, 20))):
        at, kind = rng.randrange(len(changed) + 1), rng.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at : at + rng.choice((1, 2, 9))]
        elif kind == 2:
            changed[at:at] = rng.choice(
                (*PIECES[:8], TOKEN.encode(), rng.randbytes(4), b"\xff" * 9, b"\x2a\x00" * 3000)
            )
        elif kind == 3:
            changed[at:at] = changed[at : at + 30] * rng.choice((1, 2, 400))
        else:
            del changed[at:]
    return bytes(changed[:_LARGEST])


def metadata_message(rng: random.Random) -> bytes:
    """A message of metadata of which bytes are others."""
    return _changed_bytes(_metadata(rng.choice(("m", "m", TOKEN))), rng)


def inferred_message(rng: random.Random) -> bytes:
    """A message of embeddings of which bytes are others."""
    return _changed_bytes(rng.choice((_inferred("FP32"), _inferred("FP32"), _listed(), _inferred(TOKEN))), rng)


def binary_answer(rng: random.Random) -> bytes:
    """A binary answer over HTTP: the length of the document, the document and bytes, of which some are others."""
    document = json.loads(json.dumps(INFERRED))
    tensor = document["outputs"][0]
    del tensor["data"]
    tensor["parameters"] = {"binary_data_size": rng.choice((8, 8, 8, 8, -1, 9, 10**9, "8", True, None, TOKEN))}
    if rng.random() < 0.3:
        parameters = {"binary_data_size": rng.choice((0, 4, -8, 2**62, [], 1.5))}
        document["outputs"].insert(rng.randrange(2), {"name": "other", "parameters": parameters})
    head = json.dumps(document).encode()
    length = rng.choice((str(len(head)), str(len(head)), str(len(head)), "0", "-1", "9" * 400, "1e1", "", TOKEN))
    body = head + _FLOATS * rng.choice((1, 1, 1, 2, 0)) + rng.choice((b"", b"", b"\0" * 4))
    body = _changed_bytes(body, rng) if rng.random() < 0.4 else body
    return plain_answer(body).replace(b"\r\n", f"\r\nInference-Header-Content-Length: {length}\r\n".encode(), 1)


def run_metadata_message(content: bytes, folder: Path) -> None:
    """Describe a model over gRPC with `content`."""
    del folder
    with one_line():
        check_model(messages.read_model(content, _URL), _remote(), _shown)


def run_inferred_message(content: bytes, folder: Path) -> None:
    """Answer a batch of faces over gRPC with `content`."""
    del folder
    with one_line():
        found = messages.read_inferred(content, _remote(), [1, 2], _shown)
    if found.shape != (1, 2) or not np.isfinite(found).all():
        raise LeakError(f"embeddings {found}")


def run_binary(content: bytes, folder: Path) -> None:
    """Answer a batch of faces in the binary form with `content`."""
    del folder
    caller = Caller("remote.toml", _LIMITS, np.random.default_rng(0), sleep=lambda _: None)
    described = plain_answer(json.dumps(METADATA).encode())
    with mock.patch.dict(os.environ, FUZZ_TOKEN=TOKEN), answering(plain_answer(b""), described, content), one_line():
        found = open_inference(_remote(binary=True), caller).embeddings(_CROP)
    if found.shape != (1, 2) or not np.isfinite(found).all():
        raise LeakError(f"embeddings {found}")


def _json_service(answer: Answer, output: Embedding | None) -> JsonService:
    places = ("/a",) if output else ("/a", "/b")
    headers = (("X-Key", Secret("FUZZ_TOKEN")),)
    return JsonService(
        path=Path("remote.toml"), name="far", url=_URL, width=_SIDE, height=_SIDE,
        request=Request("POST", "/", "json", "base64", places, "{}", (), headers), answer=answer, output=output,
        decision=Decision("euclidean", 0.1, 1.0), alignment=None, limits=_LIMITS,
    )  # fmt: skip


_RULES = (
    When(400, ("__type",), empty=False, value=None, contains="AccessDenied"),
    When(None, ("FaceMatches",), empty=True, value=None, contains=None),
    When(None, ("error",), empty=False, value="1", contains=None),
)


def _similarity() -> JsonService:
    pointer = ("FaceMatches", "0", "Similarity")
    return _json_service(Answer("similarity", pointer, Scale("similarity", 0.0, 100.0, 80.0), _RULES, _RULES[2:]), None)


def _embedding() -> JsonService:
    return _json_service(Answer("embedding", ("outputs", "0", "data"), None, _RULES, ()), Embedding(2, normalize=False))


def _status(content: bytes) -> bytes:
    return (b"200 OK", b"200 OK", b"400 Bad", b"403 No", b"503 Busy")[len(content) % 5]


def run_json_similarity(content: bytes, folder: Path) -> None:
    """Compare two faces; any JSON service answers with `content`, with a status that depends on its length."""
    del folder
    crop = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    with mock.patch.dict(os.environ, FUZZ_TOKEN=TOKEN), answering(plain_answer(content, _status(content))), one_line():
        found = JsonComparer(_similarity()).compare(crop, crop)
    if not (np.isnan(found) or 0 <= found <= 100):
        raise LeakError(f"distance {found}")


def run_json_embedding(content: bytes, folder: Path) -> None:
    """Embed a face; any JSON service answers with `content`."""
    del folder
    with mock.patch.dict(os.environ, FUZZ_TOKEN=TOKEN), answering(plain_answer(content, _status(content))), one_line():
        found = JsonEmbedder(_embedding(), 2, normalize=False).embeddings(_CROP)
    if found.shape != (1, 2) or np.isinf(found).any():
        raise LeakError(f"embeddings {found}")


def json_bytes(rng: random.Random) -> bytes:
    """The text of a document in which some values are others."""
    content = json.dumps(json_tree(rng), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return content[:_LARGEST]


TARGETS: list[Target] = [
    ("grpc-metadata", made_by(metadata_message), run_metadata_message),
    ("grpc-answer", made_by(inferred_message), run_inferred_message),
    ("open-inference-binary", made_by(binary_answer), run_binary),
    ("json-similarity", made_by(json_bytes), run_json_similarity),
    ("json-embedding", made_by(json_bytes), run_json_embedding),
]
