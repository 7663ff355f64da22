"""A remote verifier that uses the open inference protocol v2, as Triton and KServe do.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md and inference_grpc.md.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.pixels import Images
from toolkit.verifiers.edge import batches, model_input
from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.config import OpenInference, model_path, token
from toolkit.verifiers.remote.exchange import Server, bearer
from toolkit.verifiers.remote.tensors import DATATYPE, check_model, check_numbers, check_output


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
        fixed: the number of crops that every call sends, or None.
    """

    answers: Literal["embedding"] = "embedding"

    def __init__(self, remote: OpenInference, transport: Transport, fixed: int | None) -> None:
        self.remote, self.fixed, self.most = remote, fixed, fixed or remote.batch
        self._transport = transport

    def embeddings(self, crops: Images) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of crops (N, H, W, 3), by one call. See `service.Embedder`."""
        spec, output = self.remote.input, self.remote.output
        if crops.ndim != 4 or crops.shape[1:] != (spec.height, spec.width, 3):
            raise InputError(
                f"crops of shape {crops.shape} do not fit {self.remote.name}, which takes "
                f"(N, {spec.height}, {spec.width}, 3)"
            )
        if not 1 <= len(crops) <= self.most:
            raise InputError(f"{self.remote.name} takes 1 to {self.most} crops in one call, not {len(crops)}")
        ((batch, count),) = batches(crops, self.most, self.fixed)
        result = self._transport.infer(model_input(batch, spec))[:count]
        if output.normalize:
            result = result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), np.float32(1e-12))
        return result


class _Http:
    """The protocol over HTTP, with tensors in JSON."""

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
        wanted, shape = self._remote.output, [len(tensor), self._remote.output.size]
        given = {
            "name": self._remote.input.name,
            "shape": list(tensor.shape),
            "datatype": DATATYPE,
            "data": tensor.ravel().tolist(),
        }
        document = {"inputs": [given], "outputs": [{"name": wanted.name}]}
        answer = self._server.exchange(f"{self._model}/infer", document)
        found = check_output(answer, self._remote, shape, self.shown)
        return check_numbers(found.get("data"), self._remote, shape)


def open_inference(remote: OpenInference, caller: Caller) -> OpenInferenceService:
    """Ask the server whether it is ready, and check that its model matches `remote`.

    Raises:
        UnavailableError: the server does not answer or denies access, or the token is not set.
        InputError: the model has other tensors, or the answer is not valid.
    """
    transport = _Http(remote)
    caller(transport.ready)
    fixed = check_model(caller(transport.model), remote, transport.shown)
    return OpenInferenceService(remote, transport, fixed)
