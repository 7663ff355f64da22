"""Keras models, SavedModels and HDF5 files that could run code, reach files or flood memory: refused by name."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from toolkit.errors import InputError
from toolkit.networks.hdf5 import open_hdf5
from toolkit.verifiers.checkpoints import load_network
from toolkit.verifiers.manifest import Checkpoint
from toolkit.verifiers.untrusted import check_keras, check_saved_model

SIDE = 8


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harmless Keras model with a wide choice of layers, compiled, in both formats."""
    folder = tmp_path_factory.mktemp("plain")
    for name, factor in (("model.keras", 2.0), ("model.h5", 1.0)):
        inputs = keras.Input((SIDE, SIDE, 3))
        x = keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-4))(inputs)
        x = keras.layers.PReLU(shared_axes=(1, 2))(keras.layers.BatchNormalization()(x))
        # The older format cannot store an operation like this one.
        x = x if factor == 1.0 else x * factor
        x = keras.layers.Dropout(0.1)(keras.layers.GlobalAveragePooling2D()(x))
        model = keras.Model(inputs, keras.layers.UnitNormalization()(keras.Sequential([keras.layers.Dense(2)])(x)))
        model.compile("adam", "mse")
        model.save(folder / name)
    return folder


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_harmless_models_pass(plain: Path, name: str) -> None:
    check_keras(plain / name)
    network = load_network(Checkpoint(plain / name, "keras", None, {}), normalize=False)
    assert network(tf.zeros((2, SIDE, SIDE, 3))).shape == (2, 2)


def rewritten(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Copy a .keras file with another configuration."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return target


def layer(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["config"]["layers"][1].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (layer(class_name="Lambda"), "Lambda"),
        (layer(class_name="TFSMLayer"), "TFSMLayer"),
        (layer(class_name="TextVectorization"), "TextVectorization"),
        (layer(class_name="__lambda__"), "__lambda__"),
        (layer(class_name="Mine", module="my.package", registered_name="my>Mine"), "custom object 'Mine'"),
        (layer(class_name="system", module="os"), "custom object 'system'"),
        (layer(class_name="get_file", module="keras.utils"), "custom object 'get_file'"),
        (layer(class_name="function", module="builtins", config="eval"), "custom object 'function'"),
        (layer(class_name="Functional", module="evil"), "custom object 'Functional'"),
    ],
)
def test_what_could_run_code_is_refused(
    plain: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_keras(rewritten(plain / "model.keras", tmp_path / "evil.keras", change))


def with_member(target: Path, name: str, content: bytes, *, flags: int = 0) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    if flags:
        raw = bytearray(target.read_bytes())
        raw[raw.index(b"PK\x01\x02") + 8] |= flags
        target.write_bytes(raw)
    return target


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("config.json", b"{}", 1, "encrypted"),
        ("model.weights.h5", bytes(100 << 20), 0, "would grow"),
        ("config.json", bytes(17 << 20), 0, "would be"),
        ("../config.json", b"{}", 0, "has '../config.json' inside"),
        ("assets/words.txt", b"{}", 0, "has 'assets/words.txt' inside"),
        ("model.weights.npz", b"{}", 0, "has 'model.weights.npz' inside"),
        ("config.json", b"[" * 100_000, 0, "not JSON"),
        ("config.json", b'{"a": ' + b"9" * 10_000 + b"}", 0, "not JSON"),
    ],
)
def test_archives_that_are_no_plain_models_are_refused(
    tmp_path: Path, name: str, content: bytes, flags: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_keras(with_member(tmp_path / "model.keras", name, content, flags=flags))


def external_link(file: h5py.File) -> None:
    file["weights"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file: h5py.File) -> None:
    file["weights"] = h5py.SoftLink("/weights")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("weights", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "w", (4,))
    file.create_virtual_dataset("weights", layout)


def huge(file: h5py.File) -> None:
    file.create_dataset("weights", (1 << 40,), "f4", chunks=(1024,))


def texts(file: h5py.File) -> None:
    file["weights"] = np.array([b"a", b"b"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_link, "is a link"),
        (soft_link, "is a link"),
        (external_storage, "data in other files"),
        (virtual, "data in other files"),
        (huge, "4 GB"),
        (texts, "must be numbers"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_hdf5_that_is_more_than_numbers_is_refused(
    tmp_path: Path, plain: Path, change: Callable[[h5py.File], None], message: str, *, inside: bool
) -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        change(file.create_group("deep"))
    if inside:
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(plain / "model.keras") as old, zipfile.ZipFile(path, "w") as new:
            new.writestr("config.json", old.read("config.json"))
            new.writestr("model.weights.h5", stream.getvalue())
        with pytest.raises(InputError, match=message):
            check_keras(path)
    else:
        with pytest.raises(InputError, match=message), open_hdf5(io.BytesIO(stream.getvalue()), "file"):
            pass


def saved(folder: Path, function: Callable[[Any], Any]) -> Path:
    module = tf.Module()
    module.scale = tf.Variable(2.0)
    spec = tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32, name="x")
    module.call = tf.function(lambda x: {"embedding": function(x) * module.scale}, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures=module.call)
    return folder


def mean(x: Any) -> Any:
    return tf.reduce_mean(x, (1, 2))


def read_file(x: Any) -> Any:
    return mean(x) + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def write_file(x: Any) -> Any:
    with tf.control_dependencies([tf.io.write_file("/tmp/written", "x")]):
        return mean(x)


def text_lines(x: Any) -> Any:
    lines = tf.data.TextLineDataset("/etc/hostname").reduce(0.0, lambda n, _: n + 1.0)
    return mean(x) + lines


def records(x: Any) -> Any:
    return mean(x) + tf.data.TFRecordDataset("/etc/hostname").reduce(0.0, lambda n, _: n + 1.0)


def python(x: Any) -> Any:
    return tf.ensure_shape(tf.py_function(lambda y: y, [mean(x)], tf.float32), (None, 3))


def restore(x: Any) -> Any:
    (value,) = tf.raw_ops.RestoreV2(prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])
    return mean(x) + tf.reduce_sum(value)


def merge(x: Any) -> Any:
    with tf.control_dependencies(
        [tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=["/tmp/a"], destination_prefix="/tmp/b")]
    ):
        return mean(x)


def whole_file(x: Any) -> Any:
    with tf.control_dependencies([tf.raw_ops.PrintV2(input=tf.constant("x"), output_stream="file:///tmp/printed")]):
        return mean(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (read_file, "ReadFile"),
        (write_file, "WriteFile"),
        (text_lines, "TextLineDataset"),
        (records, "TFRecordDataset"),
        (python, "EagerPyFunc"),
        (restore, "RestoreV2"),
        (merge, "MergeV2Checkpoints"),
        (whole_file, "PrintV2"),
    ],
)
def test_operations_that_reach_files_or_code_are_refused(
    tmp_path: Path, function: Callable[[Any], Any], message: str
) -> None:
    path = saved(tmp_path / "model", function)
    with pytest.raises(InputError, match=message):
        check_saved_model(path)


def test_a_harmless_saved_model_passes_but_not_with_strange_files(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", mean)
    check_saved_model(path)
    for name in ("saved_model.cpb", "saved_model.pbtxt"):
        (path / name).write_bytes(b"")
        with pytest.raises(InputError, match=name):
            check_saved_model(path)
        (path / name).unlink()
    (path / "variables" / "link").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="variables/link"):
        check_saved_model(path)
