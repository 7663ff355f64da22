"""Normal forms of exported models: the part between input and outputs, in order, folded, in a newer operator set.

Exporters write the same verifier in many forms. What rewrites a graph, or computes gradients of it, asks for the form
that it needs (`Wanted`). ONNX Runtime's basic optimizer folds; onnx inlines functions and converts operator sets;
`freeing` gives a frozen batch any size. Then both graphs run on faces, and the result counts
only if it computes the same. A run's identity stays the hash of the original file.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import InputError, refusing
from toolkit.faces.images import read_image
from toolkit.files import bundled
from toolkit.pixels import to_unit
from toolkit.verifiers.edge import batches, model_input
from toolkit.verifiers.freeing import free_batch
from toolkit.verifiers.manifest import Input, Manifest
from toolkit.verifiers.onnx_file import (
    OLDEST_FORMAT,
    STANDARD,
    graphs_of,
    in_order,
    inputs_of,
    names_read,
    opset_of,
    parse_onnx,
)
from toolkit.verifiers.runtime import open_session, run_session
from toolkit.verifiers.trial import ONNX, is_shipped, run_apart

# What two forms of a graph may differ by, as a share of the length of a crop's output. In float32 they differ by 1e-6.
# In float16 a value has a relative error of 1/2048, and folding moves where values are rounded.
_TOLERANCE, _TOLERANCE_OF_HALVES = 1e-4, 20 / 2048
_FACES = 3
# Both graphs are loaded, and the optimizer keeps copies of constants.
_ALLOWANCE = replace(ONNX, seconds=60, seconds_per_megabyte=2, memory=2 << 30, memory_per_byte=20)
_MOST_KEPT = 4


@dataclass(frozen=True)
class Wanted:
    """What somebody needs of a graph. The order of nodes and inlined functions are always part of it.

    Attributes:
        outputs: the outputs to keep, with what they need; empty for all.
        opset, newest_opset: the oldest and the newest operator set that will do; 0 for any.
        folded: whether constants are folded, and branches on constants are taken.
        any_batch: whether the batch must have any size, also where the file fixes it. This folds constants, too.
    """

    outputs: tuple[str, ...] = ()
    opset: int = 0
    newest_opset: int = 0
    folded: bool = False
    any_batch: bool = False


def normalized(model: bytes, manifest: Manifest, wanted: Wanted) -> bytes:
    """Return a model in a normal form, which computes the same on faces. The same model gives the same bytes.

    A model that fits already is returned as it is. Each form of a model is made once in a process.

    Args:
        model: a serialized model whose inputs and outputs fit the manifest.
        manifest: the verifier.
        wanted: the form.

    Raises:
        InputError: the model has no such form, or the form computes something else. The message says which step failed.
    """
    proto = parse_onnx(model, manifest.model)
    if fits(proto, manifest, wanted):
        return model
    about = {
        "where": str(manifest.model),
        "input": asdict(manifest.input),
        "wanted": asdict(wanted),
        "model": len(model),
    }
    key = hashlib.sha256(json.dumps(about).encode() + hashlib.sha256(model).digest()).hexdigest()
    kept = _kept()
    if key not in kept:
        faces = _faces(manifest.input.height, manifest.input.width)
        content, where = model + faces.tobytes(), str(manifest.model)
        try:
            made: bytes | str = (
                _normalize(about, content)
                if is_shipped(model) else run_apart(_normalize, about, content, where, _ALLOWANCE, len(model))
            )  # fmt: skip
        except InputError as error:
            made = str(error)
        while len(kept) >= _MOST_KEPT:
            kept.pop(next(iter(kept)))
        kept[key] = made
    found = kept[key]
    if isinstance(found, str):
        raise InputError(found)
    return found


@cache
def _kept() -> dict[str, bytes | str]:
    """Normal forms, or why there is none, by model and form."""
    return {}


def fits(proto: onnx.ModelProto, manifest: Manifest, wanted: Wanted) -> bool:
    """Return whether a model has the wanted form already."""
    outputs = [value.name for value in proto.graph.output]
    plain = not proto.functions and opset_of(proto) == _wanted_opset(proto, wanted) and not wanted.folded
    cut = not wanted.outputs or set(outputs) == set(wanted.outputs)
    if not plain or not cut or (wanted.any_batch and batch_of(proto, manifest.input.name)):
        return False
    return all(in_order(list(g.node), manifest.model) == list(g.node) for g in graphs_of(proto.graph, manifest.model))


def _wanted_opset(proto: onnx.ModelProto, wanted: Wanted) -> int:
    """The operator set nearest to the model's that will do."""
    raised = max(opset_of(proto), wanted.opset)
    return min(raised, wanted.newest_opset or raised)


def batch_of(proto: onnx.ModelProto, name: str) -> int:
    """Return the batch that a model's input fixes; 0 if it fixes none."""
    entry = next((value for value in proto.graph.input if value.name == name), None)
    dims = [] if entry is None else entry.type.tensor_type.shape.dim
    return max(int(dims[0].dim_value), 0) if dims else 0


@cache
def _faces(height: int, width: int) -> NDArray[np.uint8]:
    """Generated faces (3, height, width, 3) uint8 that come with the toolkit. Their alignment does not matter here."""
    people = sorted((bundled("models") / "nobody" / "faces" / "images").iterdir())[:_FACES]
    images = [read_image(min(person.iterdir())) for person in people]
    return np.stack([np.asarray(cv2.resize(image, (width, height)), np.uint8) for image in images])


def _normalize(about: dict[str, Any], content: bytes) -> bytes:
    """Make a normal form, and prove it. The content is the model, followed by faces."""
    where, spec, model = about["where"], Input(**about["input"]), content[: about["model"]]
    wanted = Wanted(**{**about["wanted"], "outputs": tuple(about["wanted"]["outputs"])})
    faces = np.frombuffer(content, np.uint8, offset=about["model"]).reshape(-1, spec.height, spec.width, 3)
    proto = parse_onnx(model, Path(where))
    batch = batch_of(proto, spec.name)
    with refusing(f"{where}: its graph cannot be put in order"):
        proto = _ordered(proto, wanted, where)
    if wanted.folded or (wanted.any_batch and batch):
        proto = _folded(proto, where)
    opset = _wanted_opset(proto, wanted)
    if opset_of(proto) != opset:
        old = opset_of(proto)
        with refusing(f"{where}: cannot be converted from opset {old} to opset {opset}; export it with that"):
            proto = onnx.version_converter.convert_version(proto, opset)
    freed = wanted.any_batch and batch > 0
    if freed:
        with refusing(f"{where}: its batch of {batch} cannot be given any size; export it with a free batch size"):
            free_batch(proto, spec.name, batch)
    result = bytes(proto.SerializeToString())
    _prove(model, result, spec, to_unit(faces), batch, freed=freed, where=where)
    return result


def _ordered(proto: onnx.ModelProto, wanted: Wanted, where: str) -> onnx.ModelProto:
    """Inline functions, order nodes, keep the wanted outputs, and keep constants that are inputs as constants alone."""
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    for graph in graphs_of(proto.graph, Path(where)):
        _replace(graph.node, in_order(list(graph.node), Path(where)))
    if wanted.outputs:
        _replace(proto.graph.output, [value for value in proto.graph.output if value.name in wanted.outputs])
        _replace(proto.graph.node, _needed(proto.graph))
    _replace(proto.graph.input, inputs_of(proto.graph))
    proto.ir_version = max(proto.ir_version, OLDEST_FORMAT)
    return proto


def _needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on. The optimizer leaves the others in."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= names_read(node)
    return kept[::-1]


def _folded(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Let ONNX Runtime's basic optimizer fold constants, and drop those that no node reads."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder, refusing(f"{where}: ONNX Runtime's optimizer cannot fold it"):
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        folded = onnx.load(path)
    known = {o.domain for o in proto.opset_import} | {*STANDARD}
    used = {node.domain for graph in graphs_of(folded.graph, Path(where)) for node in graph.node}
    if used - known:
        raise InputError(f"{where}: ONNX Runtime's optimizer put operators of its own into it")
    # It also lists the operator sets that it knows, which other readers may not.
    _replace(folded.opset_import, [o for o in folded.opset_import if o.domain in used or o.domain in STANDARD])
    _replace(folded.metadata_props, list(proto.metadata_props))
    _replace(folded.graph.initializer, sorted(folded.graph.initializer, key=lambda tensor: tensor.name))
    folded.ir_version = proto.ir_version
    return folded


def _replace(old: Any, new: Iterable[Any]) -> None:
    """Replace the entries of a repeated field."""
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in new]
    del old[:]
    old.extend(copies)


def _prove(
    model: bytes, result: bytes, spec: Input, crops: NDArray[np.float32], batch: int, *, freed: bool, where: str
) -> None:
    """Run both forms on faces, a freed batch in two sizes.

    Raises:
        InputError: an output differs by more than the tolerance.
    """
    proto = parse_onnx(result, Path(where))
    names = [value.name for value in proto.graph.output]
    halves = any(t.data_type == onnx.TensorProto.FLOAT16 for t in parse_onnx(model, Path(where)).graph.initializer)
    tolerance = _TOLERANCE_OF_HALVES if halves else _TOLERANCE
    expected = _rows(model, names, spec, crops, batch or len(crops), where, fill=bool(batch))
    sizes = (len(crops), 1) if freed else (batch or len(crops),)
    for size in sizes:
        found = _rows(result, names, spec, crops, size, where, fill=bool(batch) and not freed)
        for name, right, value in zip(names, expected, found, strict=True):
            difference = _difference(right, value)
            if not difference <= tolerance:
                raise InputError(
                    f"{where}: its normal form computes something else: output {name!r} differs by {difference:.1e} of "
                    f"its length, and at most {tolerance:.0e} is rounding; export it in the form that is needed"
                )


def _rows(
    model: bytes, names: list[str], spec: Input, crops: NDArray[np.float32], size: int, where: str, *, fill: bool
) -> list[NDArray[np.float64]]:
    """Run a model. Return the values (N, M) of each output, one row for each crop."""
    session = open_session(model, where)
    kind = next(entry.type for entry in session.get_inputs() if entry.name == spec.name)
    parts: list[list[NDArray[np.float64]]] = [[] for _ in names]
    for batch, count in batches(crops, size, size if fill else None):
        found = run_session(session, names, {spec.name: model_input(batch, spec, kind)}, where)
        for name, part, value in zip(names, parts, found, strict=True):
            values = np.asarray(value)
            if values.dtype.kind not in "fiub" or values.size % len(batch):
                raise InputError(
                    f"{where}: output {name!r} has no numbers for each crop, so that it cannot be compared"
                )
            part.append(values.astype(np.float64).reshape(len(batch), -1)[:count])
    return [np.concatenate(part) for part in parts]


def _difference(right: NDArray[np.float64], value: NDArray[np.float64]) -> float:
    """Return the largest difference of a row, as a share of the row's length; infinity for other shapes."""
    if right.shape != value.shape:
        return np.inf
    same = (right == value) | (np.isnan(right) & np.isnan(value))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(right - value))
    lengths = np.linalg.norm(np.where(np.isfinite(right), right, 0.0), axis=1)
    return float(np.max(np.linalg.norm(apart, axis=1) / np.maximum(lengths, 1e-12), initial=0.0))
