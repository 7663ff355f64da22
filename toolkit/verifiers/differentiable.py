"""A verifier's network as a differentiable TensorFlow function, from its checkpoint or from the ONNX file itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from toolkit.errors import InputError
from toolkit.quiet import import_tensorflow
from toolkit.verifiers.checkpoints import check_checkpoint, open_network, size_of
from toolkit.verifiers.manifest import Checkpoint, Decision, Input, Manifest, Output
from toolkit.verifiers.normalize import Wanted, normalized
from toolkit.verifiers.onnx_file import model_sha256, parse_onnx, read_onnx
from toolkit.verifiers.onnx_graph import translate
from toolkit.verifiers.trial import TENSORFLOW, shipped_hashes, try_once

# Networks that somebody uses, by all that they depend on, and the one that was asked for last. A sweep audits one
# verifier many times, and to load and trace its network takes seconds.
_IN_USE: WeakValueDictionary[tuple[str, str], Any] = WeakValueDictionary()
_LATEST: list[Any] = []
# Why a file has no normal form, by its hash, for the files whose networks were loaded here as they are.
_NO_NORMAL_FORM: dict[str, str] = {}


def has_checkpoint(manifest: Manifest) -> bool:
    """Return whether the original framework's model exists. Without it, gradients come from the ONNX file."""
    return manifest.checkpoint is not None and manifest.checkpoint.path.exists()


def differentiable(manifest: Manifest) -> Callable[[Any], Any]:
    """Load the verifier's network in TensorFlow, from its checkpoint or, without a checkpoint, from the ONNX file.

    Returns:
        A function from the model's input tensor to embeddings (N, D). It is traced once, and so is its gradient,
        however many verifiers share it: the same file gives the same function as long as that is in use.

    Raises:
        InputError: the model cannot be loaded, or the ONNX file has an operator that is not supported.
        UnavailableError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    checkpoint, digest = _source(manifest)
    key = digest, repr((checkpoint and (checkpoint.format, checkpoint.network), manifest.input, manifest.output))
    network = _IN_USE.get(key)
    if network is None:
        network = _IN_USE[key] = tf.function(_loaded(manifest, checkpoint, digest), autograph=False)
    _LATEST[:] = [network]
    return network


def try_gradients(manifest: Manifest) -> None:
    """Try in another process whether `differentiable` can load the network, and whether it has a gradient.

    This process loads neither the network nor TensorFlow. What is shipped is not tried.

    Raises:
        InputError: the model cannot be loaded, or the ONNX file has an operator that is not supported.
    """
    _tried(manifest, *_source(manifest))


def _source(manifest: Manifest) -> tuple[Checkpoint | None, str]:
    """The checkpoint that gradients come from, or None for the ONNX file; and the hash of what they come from."""
    checkpoint = manifest.checkpoint if has_checkpoint(manifest) else None
    return checkpoint, model_sha256(manifest.model) if checkpoint is None else check_checkpoint(checkpoint)


def _tried(manifest: Manifest, checkpoint: Checkpoint | None, digest: str) -> tuple[bytes, str]:
    """Try the network of `differentiable` unless it is shipped. Returns what `model_for_gradients` does."""
    model, lacking = model_for_gradients(manifest) if checkpoint is None else (b"", "")
    if digest not in shipped_hashes():
        about = {
            "model": str(manifest.model.resolve()), "sha256": digest, "input": asdict(manifest.input),
            "output": asdict(manifest.output), "metric": manifest.decision.metric,
            "checkpoint": checkpoint and {**asdict(checkpoint), "path": str(checkpoint.path.resolve())},
        }  # fmt: skip
        source = manifest.model if checkpoint is None else checkpoint.path
        with _saying(lacking):
            try_once(_differentiate, about, model, str(source), TENSORFLOW, size_of(source))
    return model, lacking


def _loaded(manifest: Manifest, checkpoint: Checkpoint | None, digest: str) -> Callable[[Any], Any]:
    """Load the network of `differentiable`, after its trial."""
    model, lacking = _tried(manifest, checkpoint, digest)
    with _saying(lacking):
        network = network_of(manifest, model)
    if lacking:
        _NO_NORMAL_FORM[digest] = lacking
    return network


@contextlib.contextmanager
def _saying(lacking: str) -> Iterator[None]:
    """Add to errors why a file has no normal form, if it has none."""
    try:
        yield
    except InputError as error:
        if lacking:
            raise InputError(f"{error}; and it has no normal form ({lacking})") from error
        raise


def gradients_from(manifest: Manifest) -> str:
    """Say what the gradients of a verifier come from, and why not from the normal form of its ONNX file.

    The verifier's network must have been loaded in this process.
    """
    if manifest.checkpoint is not None and has_checkpoint(manifest):
        return manifest.checkpoint.path.name
    reason = _NO_NORMAL_FORM.get(model_sha256(manifest.model))
    return "the ONNX file itself" + (f" as it is, because it has no normal form: {reason}" if reason else "")


def model_for_gradients(manifest: Manifest) -> tuple[bytes, str]:
    """Return the ONNX file of a verifier in the form that is translated: the part of the embedding, for any batch.

    A file that has no such form is translated as it is, with what the operators make of it. Then the second value says
    why it has none.

    Raises:
        InputError: the file cannot be read.
    """
    model = read_onnx(manifest.model).content
    try:
        return normalized(model, manifest, Wanted((manifest.output.name,), folded=True, any_batch=True)), ""
    except InputError as error:
        return model, str(error)


def network_of(manifest: Manifest, model: bytes) -> Callable[[Any], Any]:
    """Load the network of `differentiable`, without a trial. `model` is that of `model_for_gradients`."""
    tf = import_tensorflow()
    if manifest.checkpoint is not None and has_checkpoint(manifest):
        return open_network(manifest.checkpoint, normalize=manifest.output.normalize)
    output = manifest.output
    network = translate(parse_onnx(model, manifest.model), manifest.model, output.name)

    def rows(x: Any) -> Any:
        # Fails for a file whose output has no row for each crop.
        found = tf.reshape(network(x), (tf.shape(x)[0], output.size))
        return tf.math.l2_normalize(found, axis=-1, epsilon=1e-24) if output.normalize else found

    return rows


def _differentiate(about: dict[str, Any], content: bytes) -> bytes:
    """Load a verifier's network, and compute one gradient. The content is the ONNX model, if there is no checkpoint."""
    from toolkit.verifiers.tensorflow import NoGradientError, TensorFlowVerifier

    spec, output = Input(**about["input"]), Output(**about["output"])
    given = about["checkpoint"]
    checkpoint = given and Checkpoint(**{**given, "path": Path(given["path"])})
    decision, model = Decision(about["metric"], 1.0, 4.0), Path(about["model"])
    manifest = Manifest(model, "", model, None, "", "", spec, output, decision, None, checkpoint)
    # A graph for one image alone must not seem to take any batch.
    crops = np.full((2, spec.height, spec.width, 3), 0.5, np.float32)
    verifier = TensorFlowVerifier(manifest, network=network_of(manifest, content))
    # A network without a gradient can be loaded: attacks that need one say so, and an audit finds it suspicious.
    with contextlib.suppress(NoGradientError):
        verifier.distances_and_gradients(crops, np.zeros((2, output.size), np.float32))
    return b""
