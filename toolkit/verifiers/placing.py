"""Writing of verifiers: a model and its manifest appear together, and only after both were tried."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import UsageError
from toolkit.files import atomic_path, write_bytes
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier


@dataclass(frozen=True)
class WrittenVerifier:
    """The files of a verifier: the model, its manifest, and the SHA-256 of the model."""

    path: Path
    manifest: Path
    sha256: str


def check_output(output: Path, manifest: Manifest, what: str) -> None:
    """Check the name of a verifier that is made from another one.

    Args:
        output: the file to write.
        manifest: the verifier that it is made from.
        what: what the new verifier is, for the error message.

    Raises:
        UsageError: the output would overwrite the verifier, or does not end in .onnx.
    """
    if output.suffix != ".onnx":
        raise UsageError(f"{output}: the name of a {what} verifier must end in .onnx")
    if output.resolve() == manifest.model.resolve():
        raise UsageError(f"{output}: is the verifier itself; choose another name for the {what} verifier")


def write_verifier(output: Path, content: bytes, document: Any, beside: Path | None = None) -> WrittenVerifier:
    """Write a model, and its manifest beside it. Nothing is written if the two cannot be read back and run.

    Args:
        output: the .onnx file to write.
        content: the model.
        document: the manifest, from tomlkit. The name and the hash of the model's file are set in it.
        beside: the manifest's file. Default: the name of the output with .toml.

    Raises:
        InputError: the model or the manifest cannot be used, or the files cannot be written.
    """
    import tomlkit

    digest = hashlib.sha256(content).hexdigest()
    document["model"]["file"], document["model"]["sha256"] = output.name, digest
    described, beside = tomlkit.dumps(document).encode(), beside or output.with_suffix(".toml")
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / output.name
        write_bytes(trial, content)
        write_bytes(trial.with_suffix(".toml"), described)
        _run(read_manifest(trial))
    with atomic_path(beside) as first, atomic_path(output) as second:
        first.write_bytes(described)
        second.write_bytes(content)
    return WrittenVerifier(output, beside, digest)


def _run(manifest: Manifest) -> None:
    crop = np.random.default_rng(0).random((1, manifest.input.height, manifest.input.width, 3), np.float32)
    RuntimeVerifier(manifest, execution=Execution("cpu")).embed(crop)
