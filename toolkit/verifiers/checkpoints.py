"""Loading of checkpoints: the original framework's model as a differentiable TensorFlow function.

Checkpoints are not trusted. The hash is checked before anything parses the file. Models that could run code or access
files are rejected before they are built. What is not shipped is loaded in a process of its own first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, refusing
from toolkit.files import sha256_of
from toolkit.networks import build
from toolkit.networks.weights import load_weights
from toolkit.quiet import import_tensorflow
from toolkit.verifiers.frozen_graph import read_frozen_graph
from toolkit.verifiers.manifest import Checkpoint
from toolkit.verifiers.trial import TENSORFLOW, shipped_hashes, try_once
from toolkit.verifiers.untrusted import check_keras, check_saved_model

Network = Callable[[Any], Any]


def load_network(checkpoint: Checkpoint, normalize: bool) -> Network:  # noqa: FBT001 - the manifest's own field
    """Load a checkpoint.

    Args:
        checkpoint: the file or folder, its format and hash, and, for a file of weights, the network.
        normalize: L2-normalize the embeddings. This has no effect if the graph already normalizes them.

    Returns:
        A function from the model's input tensor (float32, in the manifest's layout and standardization) to embeddings
        (N, D). It can be called inside a `tf.function` and differentiated.

    Raises:
        InputError: the file is missing, has another hash, does not match its format, or is not safe to load.
        UnavailableError: TensorFlow is not installed.
    """
    import_tensorflow()
    digest = check_checkpoint(checkpoint)
    if digest not in shipped_hashes():
        about = {**asdict(checkpoint), "path": str(checkpoint.path.resolve()), "sha256": digest}
        try_once(_load_apart, about, b"", str(checkpoint.path), TENSORFLOW, size_of(checkpoint.path))
    return open_network(checkpoint, normalize=normalize)


def check_checkpoint(checkpoint: Checkpoint) -> str:
    """Check that a checkpoint exists and has the hash that the manifest states. Return its hash.

    Raises:
        InputError: it does not exist, or has another hash.
    """
    path = checkpoint.path
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint; download it, or correct checkpoint.file in the manifest")
    found = sha256_of(path)
    if checkpoint.sha256 not in (None, found):
        raise InputError(
            f"{path}: sha256 is {found}, but the manifest says {checkpoint.sha256}; the file was changed or damaged"
        )
    return found


def open_network(checkpoint: Checkpoint, *, normalize: bool) -> Network:
    """Load a checkpoint as `load_network` does, without a trial in a process of its own.

    Raises:
        InputError: the file does not match its format, or is not safe to load.
        UnavailableError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    load = {
        "keras": _load_keras,
        "keras-weights": _load_keras_weights,
        "frozen-graph": _load_frozen_graph,
        "saved-model": _load_saved_model,
    }[checkpoint.format]
    with refusing(f"{checkpoint.path}: cannot be loaded"):
        network = load(checkpoint)
    return (lambda x: tf.math.l2_normalize(network(x), axis=-1, epsilon=1e-24)) if normalize else network


def _load_apart(about: dict[str, Any], _: bytes) -> bytes:
    open_network(Checkpoint(**{**about, "path": Path(about["path"])}), normalize=False)
    return b""


def size_of(path: Path) -> int:
    """Return how many bytes a file or all files of a folder have."""
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def _load_keras(checkpoint: Checkpoint) -> Network:
    import keras

    check_keras(checkpoint.path)
    with refusing(f"{checkpoint.path}: Keras cannot load it"):
        model = keras.saving.load_model(checkpoint.path, compile=False, safe_mode=True)
    return lambda x: model(x, training=False)


def _load_keras_weights(checkpoint: Checkpoint) -> Network:
    arguments = dict(checkpoint.network)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{checkpoint.path}: is a file of weights; set checkpoint.network.name in the manifest")
    model = build(name, **arguments)
    load_weights(model, checkpoint.path)
    return lambda x: model(x, training=False)


def _load_frozen_graph(checkpoint: Checkpoint) -> Network:
    tf = import_tensorflow()
    graph = read_frozen_graph(checkpoint.path)

    @tf.function(autograph=False)
    def network(x: Any) -> Any:
        with refusing(f"{checkpoint.path}: TensorFlow cannot import the graph"):
            return tf.graph_util.import_graph_def(
                graph, input_map={"input:0": x}, return_elements=["embeddings:0"], name=""
            )[0]

    return network


def _load_saved_model(checkpoint: Checkpoint) -> Network:
    tf = import_tensorflow()
    path = checkpoint.path
    check_saved_model(path)
    with refusing(f"{path}: cannot be loaded, or has no signature 'serving_default'"):
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(f"{path}: must have one input and one output, not {sorted(inputs)} and {sorted(outputs)}")
    (input_name,), (output_name,) = inputs, outputs

    def network(x: Any, _owner: Any = loaded) -> Any:  # keeps the model alive, which owns the variables
        return signature(**{input_name: x})[output_name]

    return network
