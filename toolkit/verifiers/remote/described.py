"""A remote verifier, described as if it were a local one."""

from __future__ import annotations

from toolkit.verifiers.manifest import Input, Manifest, Output
from toolkit.verifiers.remote.config import JsonService, OpenInference, Remote


def described(remote: Remote) -> Manifest:
    """Describe a remote verifier by a manifest that has no model file. `service` says what its answers depend on.

    A service that takes photographs and compares them itself gets 8-bit RGB; its crops stand for embeddings, see
    `RemoteVerifier`.
    """
    if isinstance(remote, OpenInference):
        input_, output = remote.input, remote.output
    else:
        own = remote.output if isinstance(remote, JsonService) else None
        zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        input_ = Input("photograph", remote.height, remote.width, "NHWC", "RGB", 0.0, 255.0, "fixed", zeros, ones)
        output = Output("photograph", 3 * remote.height * remote.width, normalize=False)
        if own is not None:
            output = Output("embedding", own.size, own.normalize)
    return Manifest(
        path=remote.path,
        name=remote.name,
        model=remote.path,
        sha256=None,
        license="",
        provenance=remote.address,
        input=input_,
        output=output,
        decision=remote.decision,
        alignment=remote.alignment,
        checkpoint=None,
        service=remote.identity,
    )
