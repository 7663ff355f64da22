"""Weights by layer name, in the HDF5 layout of the published FaceNet weights.

A file has the attribute ``layer_names`` and one group per layer. A group has the attribute ``weight_names`` and the
arrays. Loading by name finds missing and superfluous layers, which loading by position would not notice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.files import atomic_write
from toolkit.networks.hdf5 import open_hdf5

if TYPE_CHECKING:
    import keras

_NAMES_SHOWN = 5


def save_weights(model: keras.Model, path: Path, *, half: bool = False) -> None:
    """Write the weights of `model` to an HDF5 file.

    Args:
        model: the model.
        path: the file.
        half: store float16 instead of float32. This is lossless only if the weights were rounded to float16 before.

    Raises:
        InputError: the file cannot be written.
    """
    import h5py

    with atomic_write(path) as stream, h5py.File(stream, "w") as file:
        layers = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(name, data=value.astype(np.float16 if half else np.float32))


def load_weights(model: keras.Model, path: Path) -> None:
    """Set the weights of `model` from an HDF5 file of this layout.

    Raises:
        InputError: the file does not have this layout, or layers or shapes do not match. The message names them.
    """
    with open_hdf5(path, str(path)) as file:
        root = file.get("model_weights", file)
        stored = {_text(name): root[_text(name)] for name in root.attrs["layer_names"]}
        stored = {name: group for name, group in stored.items() if len(group.attrs["weight_names"])}
        layers = {layer.name: layer for layer in model.layers if layer.weights}
        if stored.keys() != layers.keys():
            raise InputError(
                f"{path}: layers do not match the network: missing {_some(layers.keys() - stored.keys())}, "
                f"unexpected {_some(stored.keys() - layers.keys())}"
            )
        for name, layer in layers.items():
            layer.set_weights(_arrays(stored[name], [tuple(w.shape) for w in layer.weights], f"{path}: {name}"))


def _arrays(group: Any, shapes: list[tuple[int, ...]], where: str) -> list[NDArray[np.float32]]:
    found = [group[_text(name)] for name in group.attrs["weight_names"]]
    # Compare shapes before reading any data, because a hostile file may declare terabytes.
    if [tuple(dataset.shape) for dataset in found] != shapes:
        raise InputError(f"{where}: has shapes {[tuple(d.shape) for d in found]}, but the network needs {shapes}")
    return [np.asarray(dataset, np.float32) for dataset in found]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _some(names: set[str]) -> str:
    listed = ", ".join(sorted(names)[:_NAMES_SHOWN]) or "none"
    return listed + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")
