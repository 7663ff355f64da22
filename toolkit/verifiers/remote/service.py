"""What every remote verifier can do: embed crops, or compare two of them. Each call here is one call of the service."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.pixels import Images
from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.config import JsonService, OpenInference, Remote
from toolkit.verifiers.remote.json_service import json_service
from toolkit.verifiers.remote.open_inference import open_inference
from toolkit.verifiers.remote.rekognition import RekognitionService


class Embedder(Protocol):
    """A service that returns embeddings of crops. Several threads may use it at once."""

    @property
    def answers(self) -> Literal["embedding"]:
        """What the service answers."""
        ...

    @property
    def remote(self) -> Remote:
        """The description of the remote verifier."""
        ...

    @property
    def most(self) -> int:
        """The largest number of crops in one call."""
        ...

    def embeddings(self, crops: Images) -> NDArray[np.float32]:
        """Return the embeddings of crops, by one call.

        Args:
            crops: (N, H, W, 3) float32, RGB in [0, 1], with N from 1 to `most`.

        Returns:
            (N, D) float32, L2-normalized if `remote` says so. A row is NaN if the service finds no face.

        Raises:
            TransientError: the call may succeed if it is repeated.
            UnavailableError: the service denies access.
            InputError: the crops do not fit, the service rejects them, or the answer is not valid.
        """
        ...


class Comparer(Protocol):
    """A service that compares two crops. Several threads may use it at once."""

    @property
    def answers(self) -> Literal["similarity", "decision"]:
        """What the service answers."""
        ...

    @property
    def remote(self) -> Remote:
        """The description of the remote verifier."""
        ...

    def compare(self, probe: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        """Compare two crops (H, W, 3), RGB, by one call.

        Returns:
            The distance by `remote.decision`; NaN if the service finds no face.

        Raises:
            TransientError: the call may succeed if it is repeated.
            UnavailableError: the service denies access.
            InputError: the service rejects the crops, or the answer is not valid.
        """
        ...


Service: TypeAlias = Embedder | Comparer


def open_service(remote: Remote, caller: Caller) -> Service:
    """Connect to a service. If it can say whether it is ready and what its model is, ask it.

    Args:
        remote: the description of the remote verifier.
        caller: makes and counts the calls of this function.

    Raises:
        UnavailableError: the service does not answer or denies access, a secret is not set, or an extra is missing.
        InputError: the service has another model, or the answer is not valid.
    """
    if isinstance(remote, OpenInference):
        return open_inference(remote, caller)
    return json_service(remote) if isinstance(remote, JsonService) else RekognitionService(remote)
