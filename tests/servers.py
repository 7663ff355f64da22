"""Local servers of remote verifiers, with a real model behind them, and with every fault that a test asks for."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    document: Any


class Server(ThreadingHTTPServer):
    """Answers by `answer`, unless `faults` has something for the next call: an answer, or a function of the handler."""

    daemon_threads = True
    seen: list[Seen]
    faults: list[Answer | Callable[[Any], None] | None]
    answer: Callable[[Seen], Answer]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_json = body and "json" in self.headers.get("Content-Type", "")
        seen = Seen(self.command, self.path, dict(self.headers), json.loads(body) if is_json else body or None)
        self.server.seen.append(seen)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if callable(fault):
            fault(self)
            return
        status, headers, content = fault or self.server.answer(seen)
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


class Quiet(Server):
    def handle_error(self, *arguments: object) -> None:
        """Clients that give up are what is tested."""


@contextmanager
def serving(answer: Callable[[Seen], Answer]) -> Iterator[Server]:
    server = Quiet(("127.0.0.1", 0), Handler)
    server.seen, server.faults, server.answer = [], [], answer
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def raw_serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that is not held to HTTP: `answer` does with each connection what it likes. Yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # clients that give up are what is tested
            answer(connection)

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def dripped(connection: socket.socket, head: bytes, drop: bytes, pause: float = 0.02, seconds: float = 8) -> None:
    """Send `head`, and then `drop` again and again."""
    connection.sendall(head)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.sendall(drop)
        time.sleep(pause)


def answered(document: object, status: int = 200, **headers: str) -> Answer:
    return status, {key.replace("_", "-"): value for key, value in headers.items()}, json.dumps(document).encode()


@dataclass
class Triton:
    """An ONNX file behind the open inference protocol v2; `change` may alter the metadata."""

    model: Path
    name: str
    change: Callable[[dict[str, Any]], None] = lambda _: None
    session: onnxruntime.InferenceSession = field(init=False)

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def __call__(self, seen: Seen) -> Answer:
        if seen.path == "/v2/health/ready":
            return 200, {}, b""
        if seen.path == f"/v2/models/{self.name}":
            metadata = {"name": self.name, "versions": ["1"], "platform": "onnxruntime_onnx", **self._tensors()}
            self.change(metadata)
            return answered(metadata)
        if seen.path != f"/v2/models/{self.name}/infer":
            return answered({"error": f"no model {seen.path}"}, 404)
        feed = {
            tensor["name"]: np.array(tensor["data"], np.float32).reshape(tensor["shape"])
            for tensor in seen.document["inputs"]
        }
        names = [output["name"] for output in seen.document["outputs"]]
        outputs = [
            {"name": name, "datatype": "FP32", "shape": list(found.shape), "data": found.ravel().tolist()}
            for name, found in zip(names, self.session.run(names, feed), strict=True)
        ]
        return answered({"model_name": self.name, "model_version": "1", "outputs": outputs})

    def _tensors(self) -> dict[str, Any]:
        def described(tensors: Any) -> list[dict[str, Any]]:
            return [
                {"name": t.name, "datatype": "FP32", "shape": [s if isinstance(s, int) else -1 for s in t.shape]}
                for t in tensors
            ]

        return {"inputs": described(self.session.get_inputs()), "outputs": described(self.session.get_outputs())}


@dataclass
class Rekognition:
    """CompareFaces: similarity falls with the difference of the images' means; a black image has no face."""

    images: list[NDArray[np.uint8]] = field(default_factory=list)

    def __call__(self, seen: Seen) -> Answer:
        assert seen.headers["X-Amz-Target"] == "RekognitionService.CompareFaces"
        source, target = (self._image(seen.document[key]) for key in ("SourceImage", "TargetImage"))
        if not source.any() or not target.any():
            return aws_error("InvalidParameterException", "Request has invalid parameters")
        similarity = max(0.0, 100 - abs(float(source.mean()) - float(target.mean())))
        found = similarity >= seen.document["SimilarityThreshold"]
        face = {"BoundingBox": {"Width": 1.0, "Height": 1.0, "Left": 0.0, "Top": 0.0}, "Confidence": 99.0}
        matches = [{"Similarity": similarity, "Face": face}] if found else []
        return answered({"SourceImageFace": face, "FaceMatches": matches, "UnmatchedFaces": []})

    def _image(self, image: dict[str, str]) -> NDArray[np.uint8]:
        content = base64.b64decode(image["Bytes"])
        assert content[:4] == b"\x89PNG"
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        self.images.append(decoded)
        return decoded


def aws_error(code: str, message: str, status: int = 400) -> Answer:
    return answered({"__type": code, "message": message}, status, Content_Type="application/x-amz-json-1.1")
