"""A denoising network in front of the verifier (paper, section 4: "Noise2Clean")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.defenses.base import Backward, GraphBuilder
from toolkit.errors import InputError
from toolkit.files import bundled, check_sha256, inside
from toolkit.networks import build, multiple_of
from toolkit.networks.hdf5 import open_hdf5
from toolkit.networks.padding import on_any_side
from toolkit.networks.weights import load_weights
from toolkit.tables import Table, read_table
from toolkit.verifiers.onnx_file import inputs_of, opset_of, parse_onnx, read_onnx
from toolkit.verifiers.runtime import open_session, run_session
from toolkit.verifiers.trial import HDF5, ONNX, shipped_hashes, try_once

_SCHEMA_VERSION = 1
_LARGEST_MODEL = 256 << 20
_BATCH = 16


@dataclass(frozen=True)
class DenoiserManifest:
    """The content of a `denoiser.toml`: an ONNX file and the Keras weights of the same network.

    The ONNX file maps crops (N, 3, H, W), RGB in [0, 1], to denoised crops of the same shape. `network` has the name
    and arguments of the Keras network.
    """

    path: Path
    name: str
    model: Path
    sha256: str
    license: str
    provenance: str
    weights: Path
    weights_sha256: str
    network: dict[str, Any]


def read_denoiser(path: Path) -> DenoiserManifest:
    """Read a denoiser's manifest. Check the hashes of its two files and the shapes of its ONNX file.

    Raises:
        InputError: a file or key is missing or not valid. The message names it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such denoiser; the shipped ones are {', '.join(shipped_denoisers())}")
    top = read_table(path, _SCHEMA_VERSION)
    model, checkpoint, image = top.table("model"), top.table("checkpoint"), top.table("input")
    manifest = DenoiserManifest(
        path=path,
        name=top.name_text("name"),
        model=inside(path.parent, model.take("file", str), f"{path}: model.file"),
        sha256=model.take("sha256", str),
        license=model.take("license", str),
        provenance=model.take("provenance", str),
        weights=inside(path.parent, checkpoint.take("file", str), f"{path}: checkpoint.file"),
        weights_sha256=checkpoint.take("sha256", str),
        network=checkpoint.take("network", dict),
    )
    _check_input(image)
    for table in (model, checkpoint, image, top):
        table.done()
    for file, expected in ((manifest.model, manifest.sha256), (manifest.weights, manifest.weights_sha256)):
        if not file.is_file() or file.stat().st_size > _LARGEST_MODEL:
            raise InputError(f"{file}: is missing or larger than {_LARGEST_MODEL >> 20} MB; {path} needs this file")
        check_sha256(file, expected)
    _try(manifest)
    _check_shapes(_load(manifest.model), manifest.model)
    return manifest


def shipped_denoisers() -> list[str]:
    """Return the names of the denoisers that are shipped with the toolkit."""
    return sorted(path.parent.name for path in bundled("models").glob("*/denoiser.toml"))


def _check_input(table: Table) -> None:
    """Check that the denoiser takes the format that defenses exchange: NCHW, RGB, [0, 1].

    Raises:
        InputError: it takes another format.
    """
    wanted = {"layout": "NCHW", "channels": "RGB"}
    for key, value in wanted.items():
        if (found := table.take(key, str)) != value:
            raise table.fail(key, f"must be {value!r}, not {found!r}")
    if (found := table.numbers("range", 2)) != (0.0, 1.0):
        raise table.fail("range", f"must be [0, 1], not {list(found)}; export the denoiser with its scaling inside")


def _load(path: Path) -> onnx.ModelProto:
    return parse_onnx(read_onnx(path).content, path)


def _try(manifest: DenoiserManifest) -> None:
    """Load both files of a denoiser that is not shipped in a process of its own.

    Raises:
        InputError: a file cannot be loaded, or its process dies, hangs or takes too much memory.
    """
    if manifest.sha256 not in shipped_hashes():
        try_once(
            _load_session, {"where": str(manifest.model)}, read_onnx(manifest.model).content, str(manifest.model), ONNX
        )
    if manifest.weights_sha256 not in shipped_hashes():
        about = {"path": str(manifest.weights.resolve()), "sha256": manifest.weights_sha256}
        try_once(_open_weights, about, b"", str(manifest.weights), HDF5, manifest.weights.stat().st_size)


def _load_session(about: dict[str, Any], content: bytes) -> bytes:
    open_session(content, about["where"])
    return b""


def _open_weights(about: dict[str, Any], _: bytes) -> bytes:
    with open_hdf5(Path(about["path"]), about["path"]):
        return b""


def _check_shapes(model: onnx.ModelProto, path: Path) -> None:
    for kind, values in (("input", inputs_of(model.graph)), ("output", list(model.graph.output))):
        if len(values) != 1:
            raise InputError(f"{path}: has {len(values)} {kind}s; a denoiser must have one")
        tensor = values[0].type.tensor_type
        sides = [d.dim_value or None for d in tensor.shape.dim]
        if tensor.elem_type != onnx.TensorProto.FLOAT or len(sides) != 4 or sides[1] not in (3, None):
            raise InputError(
                f"{path}: {kind} {values[0].name!r} has shape {sides}; a denoiser takes and gives float (N, 3, H, W)"
            )


@lru_cache(maxsize=8)
def _cached(path: Path) -> DenoiserManifest:
    return read_denoiser(path)


@lru_cache(maxsize=8)
def _session(manifest_path: Path, sha256: str) -> Any:  # noqa: ARG001 - the hash is part of the cache key
    model = _cached(manifest_path).model
    return open_session(read_onnx(model).content, model)


@lru_cache(maxsize=8)
def _network(manifest_path: Path, sha256: str) -> Callable[[Any], Any]:  # noqa: ARG001
    return tensorflow_denoiser(_cached(manifest_path))


def tensorflow_denoiser(manifest: DenoiserManifest) -> Callable[[Any], Any]:
    """Load the Keras network of a denoiser.

    Returns:
        A function from crops (N, H, W, 3) in [0, 1] of any size to denoised crops.

    Raises:
        InputError: the network is unknown, or the weights do not fit it.
        UnavailableError: TensorFlow is not installed.
    """
    from toolkit.quiet import import_tensorflow

    tf = import_tensorflow()
    # The first call may happen while TensorFlow traces a function. Without init_scope, the weights would be loaded into
    # the traced graph.
    with tf.init_scope():
        network = build(**manifest.network)
        load_weights(network, manifest.weights)
    return on_any_side(lambda x: network(x, training=False), multiple_of(**manifest.network))


@dataclass(frozen=True)
class Denoiser:
    """Applies a denoising network, and clips its output to [0, 1].

    `model` is the name of a shipped denoiser, or the path of a `denoiser.toml` inside the profile's folder. The
    constructor checks the network's files.
    """

    name: ClassVar[str] = "denoiser"
    backward: ClassVar[Backward] = "exact"
    exact: ClassVar[bool] = True
    model: str = field(default="unet", metadata={"file": True})

    def __post_init__(self) -> None:
        _ = self.manifest

    @property
    def manifest(self) -> DenoiserManifest:
        """The checked manifest."""
        if self.model.endswith(".toml"):
            return _cached(Path(self.model))
        known = shipped_denoisers()
        if self.model not in known:  # a name is no way to another folder
            raise InputError(
                f"no such denoiser: {self.model[:80]!r}; choose one of {', '.join(known)}, or name a .toml file"
            )
        return _cached(bundled("models") / self.model / "denoiser.toml")

    @property
    def sha256(self) -> str:
        """The hash of the ONNX file, so that other weights change the hash of the profile."""
        return self.manifest.sha256

    @property
    def opset(self) -> int:
        """The operator set of the ONNX file. An older verifier must be converted to it."""
        return opset_of(_load(self.manifest.model))

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """The height and width of crops that the ONNX file accepts; None if it accepts any."""
        entry = inputs_of(_load(self.manifest.model).graph)[0]
        height, width = entry.type.tensor_type.shape.dim[2:]
        return height.dim_value or None, width.dim_value or None

    def numpy(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the ONNX file in ONNX Runtime on the CPU."""
        session = _session(self.manifest.path, self.sha256)
        name = session.get_inputs()[0].name
        parts = [np.empty((0, *crops.shape[1:]), np.float32)]
        for start in range(0, len(crops), _BATCH):
            batch = np.ascontiguousarray(crops[start : start + _BATCH].transpose(0, 3, 1, 2))
            parts.append(run_session(session, None, {name: batch}, self.manifest.model)[0].transpose(0, 2, 3, 1))
        return np.clip(np.concatenate(parts), 0, 1)

    def tensorflow(self, crops: Any) -> Any:
        """Run the Keras network. The gradient is exact, and zero for clipped values."""
        import tensorflow as tf

        return tf.clip_by_value(_network(self.manifest.path, self.sha256)(crops), 0.0, 1.0)

    def onnx(self, graph: GraphBuilder, value: str) -> str:
        """Add the nodes of the ONNX file, and a Clip node."""
        denoised = graph.include(_load(self.manifest.model), value)
        zero, one = (graph.constant(np.array(limit, np.float32)) for limit in (0, 1))
        return graph.add("Clip", [denoised, zero, one])


DEFENSE = Denoiser
