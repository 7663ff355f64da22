"""Checkpoints of every format: the same embeddings, with gradients, and exported to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tests.models import MANIFEST
from toolkit.errors import InputError
from toolkit.export.onnx_export import export_onnx
from toolkit.files import sha256
from toolkit.networks import build
from toolkit.networks.folding import fold
from toolkit.networks.inception_resnet_v1 import inception_resnet_v1
from toolkit.networks.weights import load_weights, save_weights
from toolkit.verifiers.checkpoints import load_network
from toolkit.verifiers.frozen_graph import read_frozen_graph
from toolkit.verifiers.manifest import Checkpoint, Decision, read_manifest
from toolkit.verifiers.parity import Parity, check_flips, compare
from toolkit.verifiers.runtime import RuntimeVerifier
from toolkit.verifiers.tensorflow import TensorFlowVerifier

SIDE, WIDTH, SIZE = 80, 0.125, 8
NETWORK = {"name": "inception_resnet_v1", "embedding_size": SIZE, "width": WIDTH, "input_side": SIDE}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A small network whose normalizations are not the identity."""
    keras.utils.set_random_seed(0)
    network = inception_resnet_v1(SIZE, WIDTH, SIDE)
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if layer.name.endswith("BatchNorm"):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()])
    return network


@pytest.fixture(scope="module")
def small() -> keras.Model:
    """A few layers: what a format does to a network does not depend on its depth."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(6, 5, strides=3, use_bias=False),
            layers.BatchNormalization(moving_mean_initializer="random_normal", moving_variance_initializer="ones"),
            layers.Activation("relu"),
            layers.MaxPooling2D(3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(SIZE),
        ]
    )


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)


def write_frozen(folder: Path, model: keras.Model) -> Path:
    """Freeze `model` behind a branch on `phase_train` like those of TensorFlow 1's dropout and normalization."""
    function = tf.function(lambda x: tf.math.l2_normalize(model(x, training=False), 1)).get_concrete_function(
        tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32)
    )
    frozen = convert_variables_to_constants_v2(function)
    network = frozen.graph.as_graph_def()
    entry = next(n.name for n in network.node if n.op == "Placeholder" and n.attr["dtype"].type == 1)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, SIDE, SIDE, 3), name="input")
        phase = tf.compat.v1.placeholder(tf.bool, (), name="phase_train")
        tf.compat.v1.disable_control_flow_v2()
        kept = tf.compat.v1.cond(phase, lambda: tf.nn.dropout(x, 0.5) * 3.0, lambda: x + 0.0)
        tf.compat.v1.enable_control_flow_v2()
        (out,) = tf.graph_util.import_graph_def(
            network, input_map={f"{entry}:0": kept}, return_elements=[frozen.outputs[0].name], name="net"
        )
        with tf.control_dependencies([tf.no_op()]):
            tf.identity(out, name="embeddings")
    assert {"Switch", "Merge"} <= {node.op for node in graph.as_graph_def().node}
    path = folder / "frozen.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def write(kind: str, folder: Path, model: keras.Model) -> Checkpoint:
    path = folder / kind
    network: dict[str, Any] = {}
    if kind == "keras":
        path = folder / "model.keras"
        model.save(path)
    elif kind == "keras-weights":
        path = folder / "weights.h5"
        save_weights(model, path)
        network = NETWORK
    elif kind == "frozen-graph":
        path = write_frozen(folder, model)
    else:
        model.export(path, verbose=False)
    return Checkpoint(path, kind, None, network)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["keras", "keras-weights", "frozen-graph", "saved-model"])
def test_every_format_gives_embeddings_gradients_and_onnx(
    kind: str, tmp_path: Path, model: keras.Model, small: keras.Model, crops: np.ndarray
) -> None:
    if kind != "keras-weights":
        model = small
    checkpoint = write(kind, tmp_path, model)
    network = load_network(checkpoint, normalize=True)
    expected = tf.math.l2_normalize(model(crops, training=False), axis=1)
    np.testing.assert_allclose(network(tf.constant(crops)), expected, atol=1e-5)

    def gradient(function: Any) -> np.ndarray:
        x = tf.constant(crops)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(function(x)[:, 0])
        return tape.gradient(value, x).numpy()

    wanted = gradient(lambda x: tf.math.l2_normalize(model(x, training=False), axis=1))
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(gradient(network), wanted, atol=1e-3 * np.abs(wanted).max())

    toml = tmp_path / "model.toml"
    text = MANIFEST.format(
        name="small", side=SIDE, layout="NHWC", channels="RGB", range=[-1, 1], mean=0.0, std=1.0, size=SIZE,
        metric="squared-euclidean", threshold=0.99, maximum=4.0,
    ).replace("normalize = false", "normalize = true")  # fmt: skip
    text += f'[checkpoint]\nfile = "{checkpoint.path.name}"\nformat = "{kind}"\n'
    if checkpoint.network:
        values = "".join(f"{k} = {v!r}\n" for k, v in NETWORK.items())
        text += f"[checkpoint.network]\n{values}"
    toml.write_text(text)
    result = export_onnx(read_manifest(toml), tmp_path / "small.onnx")
    exported = read_manifest(result.path)
    assert exported.sha256 == sha256(result.path)
    images = (crops - crops.min()) / (crops.max() - crops.min())
    ours = RuntimeVerifier(exported).embed(images)
    np.testing.assert_allclose(ours, TensorFlowVerifier(exported).embed(images), atol=1e-5)
    proto = onnx.load(result.path)
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {"sixpixels.manifest", "sixpixels.checkpoint_sha256"} <= {p.key for p in proto.metadata_props}


def test_half_precision_weights_export_to_half_the_size_and_the_same_function(tmp_path: Path) -> None:
    folded = inception_resnet_v1(SIZE, WIDTH, SIDE, folded=True)
    path = tmp_path / "half.h5"
    save_weights(folded, path, half=True)
    rounded = load_network(Checkpoint(path, "keras-weights", None, {**NETWORK, "folded": True}), normalize=False)
    load_weights(folded, path)
    crops = np.random.default_rng(2).random((2, SIDE, SIDE, 3), np.float32)
    np.testing.assert_allclose(rounded(tf.constant(crops)), folded(crops, training=False), atol=1e-5)
    assert path.stat().st_size < 2.6 * folded.count_params() + 200_000


def test_parameters_of_the_published_network() -> None:
    assert build("inception_resnet_v1").count_params() == 23_497_424
    with pytest.raises(InputError, match="did you mean"):
        build("inception_resnet_v2")
    with pytest.raises(InputError, match="wide"):
        build("inception_resnet_v1", wide=3)


def test_folding_keeps_the_function(model: keras.Model, crops: np.ndarray) -> None:
    folded = inception_resnet_v1(SIZE, WIDTH, SIDE, folded=True)
    fold(model, folded)
    expected = model(crops, training=False).numpy()
    np.testing.assert_allclose(folded(crops, training=False), expected, atol=1e-4 * np.abs(expected).max())
    assert not any(layer.name.endswith("BatchNorm") for layer in folded.layers)


def test_weights_by_name_say_what_does_not_match(tmp_path: Path, model: keras.Model) -> None:
    path = tmp_path / "w.h5"
    save_weights(model, path)
    with h5py.File(path, "a") as file:
        names = [bytes(n) if isinstance(n, bytes) else n.encode() for n in file.attrs["layer_names"]]
        file.attrs["layer_names"] = [*(name for name in names if name != b"Bottleneck"), b"Logits"]
        file.create_group("Logits").attrs["weight_names"] = [b"Logits/kernel:0"]
        file["Logits"].create_dataset("Logits/kernel:0", data=np.zeros(3))
    with pytest.raises(InputError, match="missing Bottleneck, unexpected Logits"):
        load_weights(model, path)
    save_weights(inception_resnet_v1(SIZE + 1, WIDTH, SIDE), path)
    with pytest.raises(InputError, match=r"Bottleneck: has shapes .* but the network needs"):
        load_weights(model, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="not an HDF5 file of weights"):
        load_weights(model, path)


@pytest.mark.parametrize("kind", ["keras", "keras-weights", "frozen-graph"])
def test_damaged_and_changed_files(kind: str, tmp_path: Path, model: keras.Model, small: keras.Model) -> None:
    if kind != "keras-weights":
        model = small
    checkpoint = write(kind, tmp_path, model)
    with pytest.raises(InputError, match="sha256"):
        load_network(Checkpoint(checkpoint.path, checkpoint.format, "0" * 64, checkpoint.network), normalize=True)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:4000])
    with pytest.raises(InputError):
        load_network(checkpoint, normalize=True)(tf.zeros((1, SIDE, SIDE, 3)))
    checkpoint.path.unlink()
    with pytest.raises(InputError, match="no such checkpoint"):
        load_network(checkpoint, normalize=True)


def test_layers_that_run_code_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    evil = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    for name in ("evil.keras", "evil.h5"):
        evil.save(tmp_path / name)
        with pytest.raises(InputError, match="Lambda"):
            load_network(Checkpoint(tmp_path / name, "keras", None, {}), normalize=False)


def test_a_graph_that_reads_files_is_refused(tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="input")
        secret = tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)
        tf.identity(tf.reduce_mean(x, (1, 2)) + secret, name="embeddings")
    path = tmp_path / "evil.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(InputError, match="ReadFile"):
        read_frozen_graph(path)


def test_a_graph_without_the_published_nodes_is_refused(tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="image")
    path = tmp_path / "other.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(InputError, match="no node 'input'"):
        read_frozen_graph(path)


def test_parity_counts_flips_and_refuses_them() -> None:
    decision = Decision("euclidean", 1.0, 4.0)
    a = np.array([[0.0], [0.99], [3.0]], np.float32)
    b = np.array([[0.0], [1.01], [3.0]], np.float32)
    parity = compare(a, b, np.array([[0, 1], [0, 2]]), decision, "cpu")
    assert parity == Parity("cpu", 3, 2, pytest.approx(0.02, rel=1e-3), pytest.approx(0.02, rel=1e-3), 1)
    check_flips([parity], 1)
    with pytest.raises(InputError, match="1 of 2 decisions flipped"):
        check_flips([parity], 0)
