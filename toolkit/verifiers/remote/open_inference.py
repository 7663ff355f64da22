"""A remote verifier that uses the open inference protocol v2 over HTTP, as Triton and KServe do.

Only the JSON form of the protocol is supported.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.verifiers.edge import batches, model_input
from toolkit.verifiers.entropy import ENTROPY
from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.config import LARGEST_BATCH, OpenInference, model_path, token
from toolkit.verifiers.remote.exchange import Server, bearer

_DATATYPE = "FP32"
_LARGEST_NUMBER = float(np.finfo(np.float32).max)


class OpenInferenceVerifier:
    """A verifier whose embeddings come from a server. Attacks and replays can use it like a local runtime.

    Attributes:
        remote: the description of the remote verifier.
        caller: makes and counts the calls.
    """

    def __init__(self, remote: OpenInference, caller: Caller) -> None:
        """Ask the server whether it is ready, and check that its model matches `remote`.

        Raises:
            UnavailableError: the server does not answer or denies access, or the token is not set.
            InputError: the model has other tensors, or the answer is not valid.
        """
        self.remote, self.caller = remote, caller
        self._server = Server(remote.url, remote.limits.timeout, bearer(token(remote)))
        self._model = model_path(remote)
        self._where = f"{remote.url}{self._model}"
        caller(lambda: self._server.ready("/v2/health/ready"))
        self._fixed_batch = self._check(caller(lambda: self._server.exchange(self._model)))

    def _check(self, metadata: dict[str, Any]) -> int | None:
        """Compare the model's metadata with `remote`. Return the batch size that the server fixes, or None.

        Raises:
            InputError: they do not match.
        """
        spec, output = self.remote.input, self.remote.output
        if metadata.get("name") != self.remote.model:
            name = self._server.shown(metadata.get("name"))
            raise InputError(f"{self._where}: the answer describes {name!r}, not {self.remote.model!r}")
        inputs = [tensor for tensor in self._tensors(metadata, "inputs") if tensor.get("name") != ENTROPY]
        if [tensor.get("name") for tensor in inputs] != [spec.name]:
            names = self._server.shown([tensor.get("name") for tensor in inputs])
            raise InputError(f"{self._where}: inputs are {names}, but {self.remote.path} names {spec.name!r}")
        side = [spec.height, spec.width]
        shape = self._shape(inputs[0], [*side, 3] if spec.layout == "NHWC" else [3, *side])
        outputs = [t for t in self._tensors(metadata, "outputs") if t.get("name") == output.name]
        if len(outputs) != 1:
            raise InputError(f"{self._where}: has no output {output.name!r}, which {self.remote.path} names")
        self._shape(outputs[0], [output.size])
        return shape[0] if shape[0] > 0 else None

    def _tensors(self, document: dict[str, Any], key: str) -> list[dict[str, Any]]:
        tensors = document.get(key)
        if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
            raise InputError(f"{self._where}: the answer has no list of {key}")
        return tensors

    def _shape(self, tensor: dict[str, Any], expected: list[int]) -> list[int]:
        """Return a tensor's shape from the metadata, checked to be a batch of shape `expected`. -1 means any size.

        A server that fixes the size of batches makes this program fill them up, so their size is limited.

        Raises:
            InputError: the tensor has another type or shape.
        """
        shape, name = tensor.get("shape"), tensor.get("name")
        if tensor.get("datatype") != _DATATYPE:
            found = self._server.shown(tensor.get("datatype"))
            raise InputError(f"{self._where}: {name!r} has type {found!r}; only {_DATATYPE} is supported")
        if (
            not isinstance(shape, list)
            or len(shape) != len(expected) + 1
            or not all(type(size) is int for size in shape)
            or any(size not in (-1, e) for size, e in zip(shape[1:], expected, strict=True))
            or (shape[0] != -1 and not 1 <= shape[0] <= LARGEST_BATCH)
        ):
            found = self._server.shown(shape)
            raise InputError(f"{self._where}: {name!r} has shape {found}, but {self.remote.path} says (N, *{expected})")
        return shape

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of crops (N, H, W, 3), RGB in [0, 1]; L2-normalized if `remote` says so.

        Raises:
            UnavailableError: the server does not answer or denies access, or no calls are left.
            InputError: the crops have another size, or the answer does not have D finite numbers for each crop.
        """
        spec, output = self.remote.input, self.remote.output
        if crops.ndim != 4 or crops.shape[1:] != (spec.height, spec.width, 3):
            raise InputError(
                f"crops of shape {crops.shape} do not fit {self.remote.name}, which takes "
                f"(N, {spec.height}, {spec.width}, 3)"
            )
        parts = [np.empty((0, output.size), np.float32)]
        for batch, count in batches(crops, self.remote.batch, self._fixed_batch):
            parts.append(self._infer(model_input(batch, spec))[:count])
        result = np.concatenate(parts)
        if output.normalize:
            result /= np.maximum(np.linalg.norm(result, axis=1, keepdims=True), np.float32(1e-12))
        return result

    def embed_and_score(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the embeddings as in `embed`, and attack scores (N,) of zero. Remote detectors are not used."""
        return self.embed(crops), np.zeros(len(crops), np.float32)

    def _infer(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        wanted = self.remote.output
        given = {
            "name": self.remote.input.name,
            "shape": list(tensor.shape),
            "datatype": _DATATYPE,
            "data": tensor.ravel().tolist(),
        }
        document = {"inputs": [given], "outputs": [{"name": wanted.name}]}
        answer = self.caller(lambda: self._server.exchange(f"{self._model}/infer", document))
        found = [t for t in self._tensors(answer, "outputs") if t.get("name") == wanted.name]
        shape = [len(tensor), wanted.size]
        if len(found) != 1 or found[0].get("datatype") != _DATATYPE or found[0].get("shape") != shape:
            got = self._server.shown([(t.get("name"), t.get("datatype"), t.get("shape")) for t in found])
            raise InputError(
                f"{self._where}: the server answers {got}, not {wanted.name!r} in {_DATATYPE} with shape {shape}"
            )
        numbers = found[0].get("data")
        if isinstance(numbers, list) and all(isinstance(row, list) and len(row) == wanted.size for row in numbers):
            numbers = [number for row in numbers for number in row]
        # Integers are accepted. Booleans, and strings that look like numbers, are not.
        if (
            not isinstance(numbers, list)
            or len(numbers) != shape[0] * shape[1]
            or not all(type(number) in (int, float) for number in numbers)
        ):
            raise InputError(f"{self._where}: {wanted.name!r} must have {shape[0]} x {shape[1]} numbers")
        if not all(abs(number) <= _LARGEST_NUMBER for number in numbers):
            raise InputError(f"{self._where}: {wanted.name!r} has numbers beyond float32")
        return np.array(numbers, np.float32).reshape(shape)
