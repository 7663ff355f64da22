"""The shipped and the shared verifier as other people would have exported them: same function, other input and output.

Each change is made in the graph, so that the right manifest of the result is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolkit.defenses.base import with_opset
from toolkit.manifests.outline import Shape
from toolkit.manifests.readings import templates
from toolkit.verifiers.onnx_file import inputs_of, rename_reads


@dataclass
class Export:
    """A graph that is being changed. `layout`, `height` and `width` are those of its input."""

    model: onnx.ModelProto
    layout: str
    height: int
    width: int

    @property
    def input(self) -> onnx.ValueInfoProto:
        return inputs_of(self.model.graph)[0]

    def before(self, operator: str, constants: list[np.ndarray], **attributes: object) -> None:
        """Put a node between the input and everything that reads it."""
        graph, name = self.model.graph, self.input.name
        made = f"{name}_{operator.lower()}_{len(graph.node)}"
        rename_reads(list(graph.node), name, made)
        names = [f"{made}_{i}" for i in range(len(constants))]
        graph.initializer.extend(numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True))
        graph.node.insert(0, helper.make_node(operator, [name, *names], [made], **attributes))

    def shape(self, batch: int | str) -> None:
        """Say in the file what the input's shape is."""
        sides = [3, self.height, self.width] if self.layout == "NCHW" else [self.height, self.width, 3]
        new = helper.make_tensor_value_info(self.input.name, TensorProto.FLOAT, [batch, *sides])
        self.input.CopyFrom(new)
        del self.model.graph.value_info[:]

    def along(self, values: list[float]) -> np.ndarray:
        """A constant for each channel."""
        shape = (1, 3, 1, 1) if self.layout == "NCHW" else (1, 1, 1, 3)
        return np.array(values, np.float32).reshape(shape)


def other_layout(e: Export) -> None:
    perm = [0, 3, 1, 2] if e.layout == "NCHW" else [0, 2, 3, 1]
    e.before("Transpose", [], perm=perm)
    e.layout = "NHWC" if e.layout == "NCHW" else "NCHW"
    e.shape("batch")


def bgr(e: Export) -> None:
    e.before("Gather", [np.array([2, 1, 0], np.int64)], axis=1 if e.layout == "NCHW" else 3)


def scaled(low: float, high: float) -> Callable[[Export], None]:
    """The input is in [low, high], and was in [0, 255]."""

    def change(e: Export) -> None:
        e.before("Mul", [np.float32(255 / (high - low)).reshape(1)])
        e.before("Sub", [np.float32(low).reshape(1)])

    return change


def raw(e: Export) -> None:
    """facenet-mini's input is in [0, 255], and was standardized."""
    e.before("Mul", [np.float32(1 / 128).reshape(1)])
    e.before("Sub", [np.float32(127.5).reshape(1)])


def standardized(mean: list[float], std: list[float]) -> Callable[[Export], None]:
    """The input is standardized, and was in [0, 255]."""

    def change(e: Export) -> None:
        e.before("Add", [e.along(mean)])
        e.before("Mul", [e.along(std)])

    return change


def fixed_batch(size: int) -> Callable[[Export], None]:
    def change(e: Export) -> None:
        e.shape(size)
        output = e.model.graph.output[0].type.tensor_type.shape.dim[0]
        output.dim_value = size

    return change


def taken_as(kind: int) -> Callable[[Export], None]:
    """The input is of another type. This comes last."""

    def change(e: Export) -> None:
        e.before("Cast", [], to=TensorProto.FLOAT)
        e.input.type.tensor_type.elem_type = kind

    return change


def as_column(e: Export) -> None:
    """Embeddings of shape (N, D, 1, 1)."""
    graph, value = e.model.graph, e.model.graph.output[0]
    for node in graph.node:
        for i, output in enumerate(node.output):
            node.output[i] = "row" if output == value.name else output
    rename_reads(list(graph.node), value.name, "row")
    graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "last_axes"))
    graph.node.append(helper.make_node("Unsqueeze", ["row", "last_axes"], [value.name]))
    for _ in range(2):
        value.type.tensor_type.shape.dim.add(dim_value=1)


def several_outputs(e: Export) -> None:
    """An age of one number first, and a map of the image that is not an embedding but has as many numbers."""
    graph, name = e.model.graph, e.input.name
    embedding = graph.output[0].name
    size = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    rng = np.random.default_rng(0)
    weights = {"age_of": rng.normal(size=(size, 1)), "noise_of": rng.normal(size=(3, size)) / 255}
    graph.initializer.extend(numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items())
    axes = numpy_helper.from_array(np.array([2, 3] if e.layout == "NCHW" else [1, 2], np.int64), "sides")
    graph.initializer.append(axes)
    graph.node.append(helper.make_node("MatMul", [embedding, "age_of"], ["age"]))
    graph.node.append(helper.make_node("ReduceMax", [name, "sides"], ["colors"], keepdims=0))
    graph.node.append(helper.make_node("MatMul", ["colors", "noise_of"], ["colors_embedding"]))
    outputs = [("age", 1), ("colors_embedding", size)]
    kept = list(graph.output)
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", d]) for n, d in outputs)
    graph.output.extend(kept)


def unit_length(e: Export) -> None:
    """Embeddings of length 1: only the cosine is left."""
    graph = e.model.graph
    name = graph.output[0].name
    for node in graph.node:
        for i, output in enumerate(node.output):
            if output == name:
                node.output[i] = "raw"
    rename_reads(list(graph.node), name, "raw")
    graph.node.append(helper.make_node("LpNormalization", ["raw"], [name], axis=1, p=2))


def aligned(template: str, side: int) -> Callable[[Export], None]:
    """The input is a crop with another template and size, which the graph turns into its own (GridSample)."""

    def change(e: Export) -> None:
        assert e.layout == "NCHW"
        old, new = Shape("NCHW", e.height, e.width), Shape("NCHW", side, side)
        points, wanted = (np.array(templates(s)[t]) for s, t in ((old, "dlib"), (new, template)))
        matrix, _ = cv2.estimateAffinePartial2D(points, wanted)
        rows, columns = np.mgrid[: e.height, : e.width].astype(np.float64)
        x, y = np.tensordot(matrix, np.stack([columns, rows, np.ones_like(rows)]), 1)
        grid = (np.stack([x, y], -1) * 2 / (side - 1) - 1).astype(np.float32)[None]
        graph, name = e.model.graph, e.input.name
        rename_reads(list(graph.node), name, "turned")
        shapes = {"grid": grid, "grid_rest": np.array(grid.shape[1:], np.int64), "first": np.array([0], np.int64),
                  "second": np.array([1], np.int64)}  # fmt: skip
        graph.initializer.extend(numpy_helper.from_array(c, n) for n, c in shapes.items())
        nodes = [
            helper.make_node("Shape", [name], ["shape_of"]),
            helper.make_node("Slice", ["shape_of", "first", "second"], ["batch_of"]),
            helper.make_node("Concat", ["batch_of", "grid_rest"], ["grid_shape"], axis=0),
            helper.make_node("Expand", ["grid", "grid_shape"], ["grids"]),
            helper.make_node("GridSample", [name, "grids"], ["turned"], align_corners=1, padding_mode="reflection"),
        ]
        for node in reversed(nodes):
            graph.node.insert(0, node)
        e.height = e.width = side
        e.shape("batch")

    return change


def export(source: Path, layout: str, side: int, output: Path, *changes: Callable[[Export], None]) -> Path:
    """Write a verifier with changes, in their order.

    Args:
        source: the ONNX file.
        layout, side: of its input.
        output: the file to write.
        changes: the changes.
    """
    e = Export(with_opset(onnx.load(source), 18, str(source)), layout, side, side)
    for change in changes:
        change(e)
    onnx.checker.check_model(e.model)
    onnx.save(e.model, output)
    return output
