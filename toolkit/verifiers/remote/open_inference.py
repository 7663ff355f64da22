"""A remote verifier that uses the open inference protocol v2, as Triton and KServe do.

Sources: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; for the binary form
github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.pixels import Images
from toolkit.verifiers.edge import batches, check_crops, model_input, of_unit_length
from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.config import OpenInference, model_path, token
from toolkit.verifiers.remote.exchange import Server, bearer
from toolkit.verifiers.remote.grpc_transport import Grpc
from toolkit.verifiers.remote.tensors import DATATYPE, check_bytes, check_model, check_numbers, check_output
from toolkit.verifiers.remote.wire import Answer

# The header with the length of the JSON document in a binary body.
_HEAD = "Inference-Header-Content-Length"
_LENGTH = re.compile("[0-9]{1,9}", re.ASCII)


class Transport(Protocol):
    """How requests of the protocol reach the server. Each function makes one call. Errors are those of `Server`."""

    def shown(self, value: object) -> str:
        """Return a text or value of the server as one short, printable line without secrets."""
        ...

    def ready(self) -> None:
        """Ask whether the server is ready. If it is not, raise a `TransientError`."""
        ...

    def model(self) -> dict[str, Any]:
        """Ask for the metadata of the model. Nothing in it is checked."""
        ...

    def infer(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model on an input tensor (N, ...), and return the embeddings (N, D), checked to be finite."""
        ...


class OpenInferenceService:
    """A service that embeds crops by the open inference protocol. See `service.Embedder`.

    Attributes:
        remote: the description of the remote verifier.
        answers: what the service answers.
        most: the largest number of crops in one call.
    """

    answers: Literal["embedding"] = "embedding"

    def __init__(self, remote: OpenInference, transport: Transport, fixed: int | None) -> None:
        self.remote, self.most = remote, fixed or remote.batch
        self._transport, self._fixed = transport, fixed

    def embeddings(self, crops: Images) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of crops (N, H, W, 3), by one call. See `service.Embedder`."""
        spec, output = self.remote.input, self.remote.output
        check_crops(crops, spec.height, spec.width, self.remote.name)
        if not 1 <= len(crops) <= self.most:
            raise InputError(f"{self.remote.name} takes 1 to {self.most} crops in one call, not {len(crops)}")
        ((batch, count),) = batches(crops, self.most, self._fixed)
        result = self._transport.infer(model_input(batch, spec))[:count]
        return of_unit_length(result) if output.normalize else result


class _Http:
    """The protocol over HTTP, with tensors in JSON or, with `binary`, as bytes behind the JSON."""

    def __init__(self, remote: OpenInference) -> None:
        self._remote = remote
        self._server = Server(remote.url, remote.limits.timeout, bearer(token(remote)))
        self._model = model_path(remote)
        self.shown = self._server.shown

    def ready(self) -> None:
        self._server.ready("/v2/health/ready")

    def model(self) -> dict[str, Any]:
        return self._server.exchange(self._model)

    def infer(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = [len(tensor), self._remote.output.size]
        given: dict[str, Any] = {"name": self._remote.input.name, "shape": list(tensor.shape), "datatype": DATATYPE}
        wanted: dict[str, Any] = {"name": self._remote.output.name}
        if not self._remote.binary:
            document = {"inputs": [{**given, "data": tensor.ravel().tolist()}], "outputs": [wanted]}
            answer = self._server.exchange(f"{self._model}/infer", document)
            found = check_output(answer, self._remote, shape, self.shown)
            return check_numbers(found.get("data"), self._remote, shape)
        content = tensor.astype("<f4").tobytes()
        given["parameters"] = {"binary_data_size": len(content)}
        wanted["parameters"] = {"binary_data": True}
        head = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
        headers = {"Content-Type": "application/octet-stream", _HEAD: str(len(head))}
        return self._binary(self._server.accepted(f"{self._model}/infer", head + content, headers), shape)

    def _binary(self, answer: Answer, shape: list[int]) -> NDArray[np.float32]:
        """Return the embeddings in an answer: a JSON document, and the bytes of its outputs one after the other.

        Raises:
            InputError: the answer is not valid, or not binary.
        """
        length, where = answer.headers.get(_HEAD.lower(), ""), self._remote.address
        if not _LENGTH.fullmatch(length) or int(length) > len(answer.body):
            said = f"{_HEAD} is {self.shown(length)!r}" if length else f"it has no {_HEAD}"
            raise InputError(f"{where}: the answer is not in binary form ({said}); remove binary = true")
        document = self._server.read(replace(answer, body=answer.body[: int(length)]), where)
        found, at = check_output(document, self._remote, shape, self.shown), int(length)
        for output in document["outputs"]:
            parameters = output.get("parameters")
            size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
            if output is found:
                if size != 4 * shape[0] * shape[1]:
                    raise InputError(f"{where}: {found['name']!r} has {self.shown(size)} bytes for {shape} numbers")
                return check_bytes(answer.body[at : at + size], self._remote, shape)
            # An output without bytes has its numbers in the document.
            at += size if type(size) is int and size > 0 else 0
        raise AssertionError  # pragma: no cover - `found` is one of them


def open_inference(remote: OpenInference, caller: Caller) -> OpenInferenceService:
    """Ask the server whether it is ready, and check that its model matches `remote`.

    Raises:
        UnavailableError: the server does not answer or denies access, or the token is not set.
        InputError: the model has other tensors, or the answer is not valid.
    """
    transport: Transport = Grpc(remote) if remote.protocol == "grpc" else _Http(remote)
    caller(transport.ready)
    fixed = check_model(caller(transport.model), remote, transport.shown)
    return OpenInferenceService(remote, transport, fixed)
