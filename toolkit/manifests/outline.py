"""What an ONNX file says about itself: the part of a manifest that is certain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.verifiers.edge import BYTES, KIND_OF, batches, embedding_rows, model_input
from toolkit.verifiers.entropy import ENTROPY
from toolkit.verifiers.manifest import LARGEST_SIDE, Decision, Input, Layout, Manifest, Output
from toolkit.verifiers.onnx_file import inputs_of, opset_of, parse_onnx, read_onnx
from toolkit.verifiers.runtime import FLOATS, open_session, run_session, try_model

# Sides of crops that published verifiers take, for files that leave the size open.
SIDES = (112, 160, 150, 224)
# Shorter outputs are ages, sexes or scores, not embeddings.
_SHORTEST = 16
_BATCH = 16


@dataclass(frozen=True)
class Shape:
    """A shape of the input tensor that the file may take."""

    layout: Layout
    height: int
    width: int


@dataclass(frozen=True)
class Outline:
    """What a file says, and what became of running it once.

    Attributes:
        path: the file.
        sha256: its hash, with its external data.
        producer: the tool that wrote it, as far as it says so; may be empty.
        opset: the version of its operators.
        input: the input tensor's name.
        shapes: the shapes of the input that the model accepts.
        fixed_shape: whether the file leaves no choice of the shape.
        fixed_batch: the number of images in each call, if the file fixes it.
        takes_bytes: whether the input is of bytes, so that its range is that of pixels.
        outputs: the length of each output (N, D) or (N, D, 1, 1) that may be an embedding, by its name.
        unit_length: whether the embeddings of an output have the length 1 already, by its name.
    """

    path: Path
    sha256: str
    producer: str
    opset: int
    input: str
    shapes: tuple[Shape, ...]
    fixed_shape: bool
    fixed_batch: int | None
    takes_bytes: bool
    outputs: dict[str, int]
    unit_length: dict[str, bool]


class Probe:
    """A model that can be run in every way to read it.

    Attributes:
        outline: what its file says.
        images_run: the number of images that it has processed.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Read a file, and run it once in each shape that its input may have.

        Args:
            path: the ONNX file.
            threads: of ONNX Runtime; see `Execution`.

        Raises:
            InputError: it is no ONNX file, has not one input of images, or has no output that may be an embedding.
        """
        file = read_onnx(path)
        proto = parse_onnx(file.content, path)
        entry = _entry(proto, path)
        dims = [d.dim_value if d.dim_value > 0 else None for d in entry.type.tensor_type.shape.dim]
        if len(dims) != 4:
            raise InputError(f"{path}: input {entry.name!r} has {len(dims)} dimensions; a batch of images has four")
        self._batch = dims[0] or _batch_of_outputs(proto)
        self._kind = KIND_OF[entry.type.tensor_type.elem_type]
        self._name, self._path, self.images_run = entry.name, path, 0
        shapes = list(_shapes(dims[1:]))
        if not shapes:
            raise InputError(f"{path}: input {entry.name!r} has shape {dims}; images have three channels")
        _try(file.content, path, spec_of(entry.name, shapes[0]))
        self._session: onnxruntime.InferenceSession = open_session(file.content, path, threads=threads)
        taken, outputs, unit = self._run_once(shapes)
        opset = opset_of(proto)
        producer = f"{proto.producer_name} {proto.producer_version}".strip()
        fixed = len(shapes) == 1
        self.outline = Outline(
            path, file.sha256, producer, opset, entry.name, taken, fixed, self._batch, self._kind == BYTES, outputs,
            unit,
        )  # fmt: skip

    def _run_once(self, shapes: list[Shape]) -> tuple[tuple[Shape, ...], dict[str, int], dict[str, bool]]:
        """Return the shapes that the model takes, and the lengths of its outputs; which of them have unit length."""
        taken, outputs, unit, reason = [], {}, {}, ""
        for shape in shapes:
            crops = np.random.default_rng(0).random((2, shape.height, shape.width, 3), np.float32)
            try:
                found = self.run(crops, spec_of(self._name, shape))
            except InputError as error:
                reason = str(error)
                continue
            lengths = {
                name: value.shape[1] for name, value in found.items()
                if value.ndim == 2 and len(value) == 2 and value.shape[1] >= _SHORTEST
            }  # fmt: skip
            if lengths:
                taken.append(shape)
                outputs = lengths
                norms = {name: np.linalg.norm(found[name], axis=1) for name in lengths}
                unit = {name: bool(np.allclose(n, 1, atol=1e-3)) for name, n in norms.items()}
        if not taken:
            why = reason or f"no output has {_SHORTEST} values or more for each image"
            raise InputError(f"{self._path}: gives no embeddings ({why})")
        return tuple(taken), outputs, unit

    def run(self, crops: NDArray[np.float32], spec: Input) -> dict[str, NDArray[np.float32]]:
        """Return all outputs of floating-point numbers by name, each with one row for each crop.

        Args:
            crops: (N, H, W, 3), RGB in [0, 1].
            spec: how to make the input of them.

        Raises:
            InputError: the model cannot be run.
        """
        names = [output.name for output in self._session.get_outputs() if output.type in FLOATS]
        parts = []
        for batch, count in batches(crops, _BATCH, self._batch):
            tensor = model_input(batch, spec, self._kind)
            found = run_session(self._session, names, {spec.name: tensor}, self._path)
            parts.append([_rows(np.asarray(value), len(batch))[:count] for value in found])
        self.images_run += len(crops)
        whole = (np.concatenate(values).astype(np.float32) for values in zip(*parts, strict=True))
        return dict(zip(names, whole, strict=True))


def _rows(value: NDArray[Any], batch: int) -> NDArray[Any]:
    """An output as rows (batch, D), if it has nothing else; axes of length 1 do not count."""
    rows = embedding_rows(value, batch, value.size // batch)
    return np.atleast_1d(value) if rows is None else rows


def _batch_of_outputs(proto: onnx.ModelProto) -> int | None:
    """1 if an output is a single row, so that the model takes one image in each call."""
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in proto.graph.output]
    return 1 if any(len(shape) == 1 and shape[0] >= _SHORTEST for shape in shapes) else None


def spec_of(name: str, shape: Shape) -> Input:
    """The simplest input of a shape: RGB in [0, 255]."""
    ones, zeros = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    return Input(name, shape.height, shape.width, shape.layout, "RGB", 0.0, 255.0, "fixed", zeros, ones)


def _entry(proto: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    """The one input of images."""
    inputs = [value for value in inputs_of(proto.graph) if value.name != ENTROPY]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise InputError(f"{path}: has {len(inputs)} inputs ({names}); a verifier takes images alone")
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in KIND_OF:
        name = onnx.TensorProto.DataType.Name(kind) if kind in onnx.TensorProto.DataType.values() else "unknown"
        raise InputError(f"{path}: input {inputs[0].name!r} is of type {name}, and must be FLOAT, FLOAT16 or UINT8")
    return inputs[0]


def _shapes(dims: list[int | None]) -> Iterable[Shape]:
    """The shapes that fit what the file says of three dimensions."""
    layouts: tuple[tuple[Layout, int, tuple[int, int]], ...] = (("NCHW", 0, (1, 2)), ("NHWC", 2, (0, 1)))
    for layout, channel, sides in layouts:
        if dims[channel] not in (3, None):
            continue
        height, width = (dims[side] for side in sides)
        if height is None and width is None:
            yield from (Shape(layout, side, side) for side in SIDES)
        else:
            sizes = (height or width or 0, width or height or 0)
            if all(8 <= size <= LARGEST_SIDE for size in sizes):
                yield Shape(layout, *sizes)


def _try(content: bytes, path: Path, spec: Input) -> None:
    """Run the model for the first time in a process of its own. See `trial`."""
    output, decision = Output("", 1, normalize=False), Decision("cosine", 1.0, 2.0)
    try_model(content, Manifest(path, path.stem, path, None, "", "", spec, output, decision, None, None))
