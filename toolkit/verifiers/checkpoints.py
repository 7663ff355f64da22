"""Loading of checkpoints: the original framework's model as a differentiable TensorFlow function.

Checkpoints are not trusted. The hash is checked before anything parses the file. Models that could run code or access
files are rejected before they are built.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.errors import InputError
from toolkit.files import sha256_of
from toolkit.networks import build
from toolkit.networks.weights import load_weights
from toolkit.quiet import import_tensorflow
from toolkit.verifiers.frozen_graph import read_frozen_graph
from toolkit.verifiers.manifest import Checkpoint

Network = Callable[[Any], Any]

_LARGEST_CONFIG = 16 << 20
_LARGEST_GRAPH = 1 << 30
# Layers that run code from the checkpoint or read other files.
_REFUSED_LAYERS = (
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "StringLookup",
    "IntegerLookup",
)
# Operations that access files or run code outside the graph. The SavedModel's own saving operations are allowed,
# because they are never called.
_REFUSED_OPERATIONS = frozenset(
    {"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "Print", "PrintV2", "Save",
     "LoadAndRemapMatrix", "LookupTableImport", "InitializeTableFromTextFileV2"}
)  # fmt: skip


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
    tf = import_tensorflow()
    path = checkpoint.path
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint; download it, or correct checkpoint.file in the manifest")
    if checkpoint.sha256 is not None and (found := sha256_of(path)) != checkpoint.sha256:
        raise InputError(
            f"{path}: sha256 is {found}, but the manifest says {checkpoint.sha256}; the file was changed or damaged"
        )
    load = {
        "keras": _load_keras,
        "keras-weights": _load_keras_weights,
        "frozen-graph": _load_frozen_graph,
        "saved-model": _load_saved_model,
    }[checkpoint.format]
    network = load(checkpoint)
    return (lambda x: tf.math.l2_normalize(network(x), axis=-1, epsilon=1e-24)) if normalize else network


def _load_keras(checkpoint: Checkpoint) -> Network:
    import keras

    _refuse_code(checkpoint.path)
    try:
        model = keras.saving.load_model(checkpoint.path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many unrelated types for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{checkpoint.path}: Keras cannot load it ({reason})") from error
    return lambda x: model(x, training=False)


def _refuse_code(path: Path) -> None:
    """Check the configuration of a Keras model without building it.

    Raises:
        InputError: the file is not a Keras model, or it has a layer that could run code.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo("config.json")
                config = archive.read(info) if info.file_size <= _LARGEST_CONFIG else b""
        else:
            import h5py

            with h5py.File(path, "r") as file:
                config = file.attrs["model_config"]
        parsed = json.loads(config)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: is not a Keras model, or is damaged ({error})") from error
    refused = _class_names(parsed) & set(_REFUSED_LAYERS)
    if refused:
        raise InputError(
            f"{path}: has a {min(refused)} layer, which can run code or read files; rebuild the model without it"
        )


def _class_names(config: Any) -> set[str]:
    """Return the names of all classes in a Keras configuration, at any depth."""
    names: set[str] = set()
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            names.add(str(value.get("class_name")))
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return names


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
        try:
            return tf.graph_util.import_graph_def(
                graph, input_map={"input:0": x}, return_elements=["embeddings:0"], name=""
            )[0]
        except ValueError as error:
            raise InputError(f"{checkpoint.path}: TensorFlow cannot import the graph ({error})") from error

    return network


def _load_saved_model(checkpoint: Checkpoint) -> Network:
    tf = import_tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = checkpoint.path
    try:
        file = path / "saved_model.pb"
        if file.stat().st_size > _LARGEST_GRAPH:
            raise InputError(f"{file}: is larger than {_LARGEST_GRAPH >> 30} GB; this is not a verifier")
        content = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(f"{path}: is not a SavedModel ({error})") from error
    graphs = [meta.graph_def for meta in content.meta_graphs]
    nodes = [n for g in graphs for body in (g.node, *(f.node_def for f in g.library.function)) for n in body]
    refused = sorted({node.op for node in nodes} & _REFUSED_OPERATIONS)
    if refused:
        raise InputError(
            f"{path}: has operations that access files or run code: {', '.join(refused)}; save the model without them"
        )
    try:
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
    except (OSError, KeyError, ValueError, AttributeError, tf.errors.OpError) as error:
        raise InputError(f"{path}: cannot be loaded, or has no signature 'serving_default' ({error})") from error
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(f"{path}: must have one input and one output, not {sorted(inputs)} and {sorted(outputs)}")
    (input_name,), (output_name,) = inputs, outputs

    def network(x: Any, _owner: Any = loaded) -> Any:  # keeps the model alive, which owns the variables
        return signature(**{input_name: x})[output_name]

    return network
