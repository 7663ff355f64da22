"""The open inference protocol over gRPC: limited size, limited time, no proxy, no retries of its own, no secrets shown.

Sources: github.com/kserve/open-inference-protocol, specification/protocol/inference_grpc.md; the statuses and channel
arguments are those of github.com/grpc/grpc, doc/statuscodes.md and include/grpc/impl/channel_arg_names.h.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, SixpixelsError, UnavailableError
from toolkit.quiet import import_grpc
from toolkit.verifiers.remote import messages
from toolkit.verifiers.remote.calls import TransientError
from toolkit.verifiers.remote.config import LARGEST_BATCH, OpenInference, token
from toolkit.verifiers.remote.exchange import LARGEST_ANSWER
from toolkit.verifiers.remote.redaction import Secrets

_DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
# The server cannot serve this request, however often it is repeated.
_REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED"}
# What gRPC itself says if a message is larger than one of both sides allows. The status is that of a full quota.
_TOO_LARGE = "message larger than max"
_BAD_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
# How long a server asks to wait, in ms: github.com/grpc/proposal, A6-client-retries.md.
_WAIT = "grpc-retry-pushback-ms"
# For metadata of a model, and for outputs that were not asked for.
_SPARE = 1 << 20
_LARGEST_HEAD = 1 << 15


class Grpc:
    """The transport of the protocol over gRPC. See `open_inference.Transport`. Several threads may use it at once."""

    def __init__(self, remote: OpenInference) -> None:
        """Prepare the connection. This does not call the server.

        Raises:
            UnavailableError: grpcio is not installed, or the token is not set.
            InputError: the token has characters that a header cannot contain.
        """
        self._grpc = import_grpc(remote.path)
        self._remote, self._where = remote, f"{remote.url} (gRPC)"
        own = token(remote)
        self._secrets = Secrets(() if own is None else (own,))
        self._metadata = () if own is None else (("authorization", f"Bearer {own}"),)
        self._channel = self._open()

    def shown(self, value: object) -> str:
        """Return a text or value of the server as one short, printable line without the token."""
        return self._secrets.shown(str(value))

    def ready(self) -> None:
        """Ask whether the server is ready."""
        if not messages.read_ready(self._call("ServerReady", messages.ready_request()), self._where):
            raise TransientError(f"the server at {self._where} is not ready")

    def model(self) -> dict[str, Any]:
        """Ask for the metadata of the model."""
        return messages.read_model(self._call("ModelMetadata", messages.model_request(self._remote)), self._where)

    def infer(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model on an input tensor (N, ...), and return the embeddings (N, D)."""
        answer = self._call("ModelInfer", messages.infer_request(self._remote, tensor))
        shape = [len(tensor), self._remote.output.size]
        return messages.read_inferred(answer, self._remote, shape, self.shown)

    def _open(self) -> Any:
        parts = urlsplit(self._remote.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        # The scheme of gRPC's own addresses keeps a host from being read as one.
        target = f"dns:///{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        arguments = {
            "grpc.max_receive_message_length": min(
                LARGEST_ANSWER, _SPARE + 4 * LARGEST_BATCH * self._remote.output.size
            ),
            "grpc.max_send_message_length": -1,
            "grpc.max_metadata_size": _LARGEST_HEAD,
            "grpc.absolute_max_metadata_size": _LARGEST_HEAD,
            # A compressed answer may be small and unfold to any size. It stays as it is, and is no message.
            "grpc.per_message_decompression": 0,
            "grpc.compression_enabled_algorithms_bitset": 1,
            # Faces and tokens go to the given address only, and the caller alone repeats calls.
            "grpc.enable_http_proxy": 0,
            "grpc.enable_retries": 0,
            "grpc.service_config_disable_resolution": 1,
            "grpc.use_local_subchannel_pool": 1,
            # The caller waits between calls. The channel shall not wait longer.
            "grpc.initial_reconnect_backoff_ms": 100,
            "grpc.max_reconnect_backoff_ms": 500,
            "grpc.min_reconnect_backoff_ms": int(1000 * self._remote.limits.timeout),
        }
        options = list(arguments.items())
        if parts.scheme == "http":
            return self._grpc.insecure_channel(target, options)
        trusted = self._grpc.ssl_channel_credentials(_roots(self._remote.path))
        return self._grpc.secure_channel(target, trusted, options)

    def _call(self, method: str, request: bytes) -> bytes:
        """Make one call with one deadline for all of it, from the name of the host to the last trailer.

        Raises:
            TransientError: there is no answer in time, the connection breaks, or the server is busy or has a fault.
            UnavailableError: the server denies access, or its certificate is not valid.
            InputError: the server refuses the request, or the answer is too large.
        """
        call = self._channel.unary_unary(f"/{messages.SERVICE}/{method}")
        try:
            return bytes(call(request, timeout=self._remote.limits.timeout, metadata=self._metadata))
        except self._grpc.RpcError as error:
            problem = self._problem(method, error)
        # Outside of the block, so that no traceback shows the text of gRPC's error, which may quote the token.
        raise problem

    def _problem(self, method: str, error: Any) -> SixpixelsError | TransientError:
        where = f"{self._where} {method}"
        code, details = str(error.code().name), str(error.details() or "")
        said = f"{code} {self.shown(details)}"
        if code == "DEADLINE_EXCEEDED":
            return TransientError(f"no answer from {where} in {self._remote.limits.timeout:g} s")
        if _BAD_CERTIFICATE in details:
            return UnavailableError(f"{where}: the server's certificate is not valid ({said})")
        if code in _DENIED:
            return UnavailableError(
                f"{where}: the server denies access ({said}); check the token in the variable that token_env names"
            )
        if _TOO_LARGE in details:
            return InputError(f"{where}: a message is too large ({said}); make batch smaller")
        if code in _REFUSED:
            return InputError(f"{where}: the server refuses the request ({said})")
        return TransientError(f"the server at {where} says {said}", _wait(error))


def _wait(error: Any) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == _WAIT and str(value).isdecimal():
            return float(value) / 1000
    return None


def _roots(where: Path) -> bytes | None:
    """The certificates that HTTPS trusts here: SSL_CERT_FILE, or the system's. None, for gRPC's own, if it has no file.

    Raises:
        UnavailableError: the file cannot be read.
    """
    file = ssl.get_default_verify_paths().cafile
    try:
        return Path(file).read_bytes() if file else None
    except OSError as error:
        raise UnavailableError(
            f"{where}: {file} with the trusted certificates cannot be read ({error.strerror}); set SSL_CERT_FILE"
        ) from error
