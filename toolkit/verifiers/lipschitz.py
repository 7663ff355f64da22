"""The Lipschitz bound of a verifier: how far its embedding can move, at most, for each unit that a crop is changed.

The bound is computed from the ONNX file, operator by operator, and never estimated: the product of the largest singular
values of its linear layers and of the slopes of its other operators. For a network that was trained without regard to
it, the product is astronomically large. For one that is Lipschitz by construction, it certifies decisions without any
sampling: as long as |distance - threshold| is above the bound times the L2 norm of a change of the crop, the decision
stays (Tsuzuku et al. 2018, arXiv:1802.04034).

A convolution with zeros around the image is a part of a periodic convolution on a larger image, whose singular values
are those of the kernel's Fourier transform at each frequency (Sedghi et al. 2019, arXiv:1805.10408). Its largest is
therefore an upper bound. A stride only leaves out values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.errors import InputError, refusing
from toolkit.verifiers.manifest import Manifest, Metric
from toolkit.verifiers.onnx_file import STANDARD, attributes_of, inputs_of, parse_onnx

# For the rounding of singular values in double precision.
_MARGIN = 1 + 1e-9
# A convolution whose singular values take more multiplications, about a minute, is refused: files may be hostile.
_MOST_OPERATIONS = 1e11
# What ONNX Runtime computes in single precision differs from the exact embedding by a smaller share of its length: by
# 4.6e-7 for facenet-lipschitz, on two crops.
_ROUNDING = 1e-5
# They move values, or are nowhere steeper than 1.
_NO_STEEPER = {
    "Abs", "Clip", "DepthToSpace", "Flatten", "Identity", "Neg", "Relu", "Reshape", "Sigmoid", "Softplus", "Softsign",
    "SpaceToDepth", "Squeeze", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip
# Their first input is data, and all others are settings.
_SETTINGS = {"Clip", "Reshape", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Layer:
    """One operator on the way from the crop to the embedding.

    Attributes:
        name: the name of the node, or of what it gives.
        operator: its type.
        bound: what it multiplies an L2 distance by, at most.
    """

    name: str
    operator: str
    bound: float


def lipschitz_layers(model: bytes, manifest: Manifest) -> list[Layer]:
    """Bound every operator between the crop and the embedding, in the order of the data.

    Args:
        model: a serialized verifier. Its operators must be a chain.
        manifest: its manifest. The first layer is the manifest's own: the scaling of pixels from [0, 1].

    Raises:
        InputError: the verifier cannot be bounded. The message names the operator.
    """
    proto, spec, where = parse_onnx(model, manifest.model), manifest.input, manifest.model
    if proto.functions:
        raise InputError(f"{where}: has no Lipschitz bound, because it has functions; export it without them")
    with refusing(f"{where}: has no Lipschitz bound"):
        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    if spec.standardization == "per-image":
        raise InputError(f"{where}: has no Lipschitz bound, because each image is standardized by itself")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants |= {
        node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    shapes = {value.name: _shape(value) for value in (*inputs_of(graph), *graph.value_info, *graph.output)}
    producers = {name: node for node in graph.node for name in node.output}
    layers: list[Layer] = []
    name, start = manifest.output.name, inputs_of(graph)[0].name
    while name != start:
        node = producers.get(name)
        if node is None or node.domain not in STANDARD or name != node.output[0]:
            raise InputError(f"{where}: has no Lipschitz bound, because no operator of ONNX computes {name!r}")
        data = [x for x in node.input if x and x not in constants and node.op_type not in _SETTINGS]
        data = data or list(node.input[:1])
        if len(data) != 1:
            raise InputError(
                f"{where}: has no Lipschitz bound, because {node.op_type} {node.name!r} joins {len(data)} branches"
            )
        bound = _bound(node, data[0], constants, shapes, str(where))
        layers.append(Layer(node.name or name, node.op_type, bound))
        name = data[0]
    scale = max((spec.high - spec.low) / std for std in spec.std)
    return [Layer(manifest.input.name, "pixels", scale), *reversed(layers)]


def lipschitz_bound(model: bytes, manifest: Manifest) -> float:
    """Return the product of all layers' bounds: what an L2 change of the crop, in [0, 1], is multiplied by at most.

    It is about the embedding as the file gives it, before the host normalizes it.

    Raises:
        InputError: as in `lipschitz_layers`.
    """
    return float(np.prod([layer.bound for layer in lipschitz_layers(model, manifest)]))


def check_lipschitz(model: bytes, manifest: Manifest) -> None:
    """Check that the file is no steeper than its manifest promises.

    Raises:
        InputError: it may be steeper, or it cannot be bounded.
    """
    promised = manifest.output.lipschitz
    if promised is None:
        return
    layers = lipschitz_layers(model, manifest)
    bound = float(np.prod([layer.bound for layer in layers]))
    if bound > promised * _MARGIN ** len(layers):
        steepest = max(layers, key=lambda layer: layer.bound)
        raise InputError(
            f"{manifest.path}: output.lipschitz is {promised:g}, but the layers of {manifest.model.name} multiply to "
            f"{bound:g}; the steepest is {steepest.operator} {steepest.name!r}, {steepest.bound:g}"
        )


def certified_radii(
    manifest: Manifest, distances: NDArray[np.float64], lengths: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return the L2 radius (N,) within which no change of the probe's crop, in [0, 1], changes the decision.

    A change of r moves the raw embedding by at most L r. Distances of raw embeddings change by no more. The direction
    of an embedding of length n turns by at most ``asin(L r / n)``, and whether two directions are nearer than the
    threshold depends on the angle between them.

    Args:
        manifest: of a verifier with a Lipschitz bound.
        distances: (N,), of probes to references.
        lengths: (N,), the lengths of the probes' raw embeddings.

    Raises:
        ValueError: the manifest has no Lipschitz bound.
    """
    decision, bound = manifest.decision, manifest.output.lipschitz
    if bound is None:
        raise ValueError("the manifest promises no Lipschitz bound")
    plain = decision.metric != "cosine" and not manifest.output.normalize
    d, threshold = (_plain(decision.metric, np.asarray(x, np.float64)) for x in (distances, decision.threshold))
    rounding = _ROUNDING * np.asarray(lengths, np.float64)
    if plain:
        return np.asarray(np.maximum(np.abs(d - threshold) - rounding, 0) / bound)
    angles, limit = (2 * np.arcsin(np.minimum(x, 2) / 2) for x in (d, threshold))
    turned = np.minimum(np.abs(angles - limit), np.pi / 2)
    return np.asarray(np.maximum(lengths * np.sin(turned) - rounding, 0) / bound)


def _plain(metric: Metric, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances; of a cosine metric, those of unit embeddings."""
    positive = np.maximum(distances, 0)
    return np.asarray({"euclidean": positive, "squared-euclidean": positive**0.5}.get(metric, (2 * positive) ** 0.5))


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _bound(
    node: onnx.NodeProto, data: str, constants: dict[str, NDArray[Any]], shapes: dict[str, list[int]], where: str
) -> float:
    others = [x for x in node.input if x and x != data]
    if not constants.keys() >= set(others):
        raise InputError(f"{where}: has no Lipschitz bound, because {node.op_type} {node.name!r} has no fixed weights")
    if node.op_type in _NO_STEEPER:
        return 1.0
    rule = _RULES.get(node.op_type)
    if rule is None:
        raise InputError(f"{where}: has no Lipschitz bound, because none is known for {node.op_type} {node.name!r}")
    attributes = attributes_of(node)
    try:
        first = bool(node.input) and node.input[0] == data
        weights = [constants[x] for x in others]
        return float(rule(_Read(weights, attributes, shapes.get(data, []), first)))
    except (ValueError, IndexError, np.linalg.LinAlgError) as error:
        raise InputError(f"{where}: has no Lipschitz bound: {node.op_type} {node.name!r}: {error}") from error


@dataclass(frozen=True)
class _Read:
    """What a rule reads of a node: constant inputs, attributes, the shape of the data, and whether they are first."""

    constants: list[NDArray[Any]]
    attributes: dict[str, Any]
    shape: list[int]
    first: bool


def _largest_singular_value(matrix: NDArray[Any]) -> float:
    """Return the spectral norm of a matrix, rounded up."""
    return float(np.linalg.norm(np.asarray(matrix, np.float64), 2)) * _MARGIN


def _conv(read: _Read) -> float:
    kernel = np.asarray(read.constants[0], np.float64)
    if kernel.ndim != 4 or read.attributes.get("group", 1) != 1:
        raise ValueError("only convolutions of images in one group are bounded")
    _check_dilations(read)
    if read.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise ValueError("the padding must be given in numbers")
    if min(read.shape[2:], default=0) < 1:
        raise ValueError("the size of the image is not known")
    strides = read.attributes.get("strides", [1, 1])
    pads = read.attributes.get("pads", [0] * 4)
    return _periodic_bound(kernel, read.shape[2:], strides, pads[:2])


def _periodic_bound(
    kernel: NDArray[np.float64], sides: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> float:
    """Bound the largest singular value of a convolution with zeros around the image.

    With strides, blocks of that many pixels become channels first, so that the convolution has no stride.

    Args:
        kernel: (out, in, height, width).
        sides: height and width of the image.
        strides: along height and width.
        pads: zeros above and on the left.
    """
    grid, steps = [], []
    for axis, (side, asked, pad) in enumerate(zip(sides, strides, pads, strict=True), 2):
        # Windows that do not overlap may begin anywhere, and lie as far apart as they like.
        stride = min(asked, kernel.shape[axis])
        steps.append(stride)
        before = 0 if asked >= kernel.shape[axis] else -pad % stride
        after = -(before + kernel.shape[axis]) % stride
        kernel = np.pad(kernel, [(before, after) if i == axis else (0, 0) for i in range(4)])
        grid.append(-(-side // stride) + 1 + kernel.shape[axis] // stride)
    out, inner, height, width = kernel.shape
    down, right = steps
    blocks = kernel.reshape(out, inner, height // down, down, width // right, right)
    kernel = blocks.transpose(0, 1, 3, 5, 2, 4).reshape(out, -1, height // down, width // right)
    if np.prod(grid, dtype=np.float64) * kernel[:, :, 0, 0].size * min(kernel.shape[:2]) > _MOST_OPERATIONS:
        raise ValueError("its singular values would take too long")
    # A real kernel has the same singular values at opposite frequencies. One row of frequencies at a time saves memory.
    columns = np.fft.rfft(kernel, grid[1], axis=3)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(grid[0]), np.arange(kernel.shape[2])) / grid[0])
    largest = (np.linalg.norm(np.einsum("h,oihw->woi", turn, columns), 2, axis=(1, 2)).max() for turn in turns)
    return float(max(largest)) * _MARGIN


def _gemm(read: _Read) -> float:
    if not read.first or read.attributes.get("transA", 0):
        raise ValueError("the data must be the first factor")
    return abs(read.attributes.get("alpha", 1.0)) * _largest_singular_value(read.constants[0])


def _matmul(read: _Read) -> float:
    if not read.first or read.constants[0].ndim != 2:
        raise ValueError("the data must be the first factor, and a matrix the second")
    return _largest_singular_value(read.constants[0])


def _prelu(read: _Read) -> float:
    return max(1.0, float(np.abs(read.constants[0]).max()))


def _check_dilations(read: _Read) -> None:
    if set(read.attributes.get("dilations", [1])) != {1}:
        raise ValueError("only windows without dilation are bounded")


def _added(read: _Read) -> float:
    constant = read.constants[0]
    # From the last dimension backwards. A side of the data that is not known, like the batch, is 0 here.
    sides = [*read.shape[::-1], *([0] * constant.ndim)]
    if any(side not in (1, of_data) for side, of_data in zip(constant.shape[::-1], sides, strict=False)):
        raise ValueError("the constant repeats the data")
    return 1.0


def _multiplied(read: _Read) -> float:
    _added(read)
    return float(np.abs(read.constants[0]).max())


def _divided(read: _Read) -> float:
    if not read.first:
        raise ValueError("a constant divided by the data has no bound")
    _added(read)
    return 1 / float(np.abs(read.constants[0]).min())


def _leaky(read: _Read) -> float:
    return max(1.0, abs(read.attributes.get("alpha", 0.01)))


def _normalized(read: _Read) -> float:
    if read.attributes.get("training_mode", 0):
        raise ValueError("it is in the mode of training")
    scale, _, _, variance = (np.asarray(c, np.float64) for c in read.constants)
    return float(np.abs(scale / np.sqrt(variance + read.attributes.get("epsilon", 1e-5))).max())


def _average(read: _Read) -> float:
    _check_dilations(read)
    kernel = list(read.attributes["kernel_shape"])
    strides = list(read.attributes.get("strides", [1, 1]))
    partial = any(read.attributes.get("pads", [0])) and not read.attributes.get("count_include_pad", 0)
    if partial or read.attributes.get("ceil_mode", 0) or read.attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ValueError("only means of whole windows are bounded")
    # Rows sum to 1, and columns to the windows that a value is in, over the size of a window.
    return float((_windows(kernel, strides) / np.prod(kernel)) ** 0.5)


def _windows(kernel: list[int], strides: list[int]) -> int:
    """The number of windows that a value is in, at most."""
    return int(np.prod([-(-k // s) for k, s in zip(kernel, strides, strict=True)]))


def _everywhere(read: _Read) -> float:
    size = int(np.prod(read.shape[2:]))
    if size < 1:
        raise ValueError("the size of the image is not known")
    return float(size**-0.5)


def _largest(read: _Read) -> float:
    _check_dilations(read)
    kernel = list(read.attributes["kernel_shape"])
    return float(_windows(kernel, list(read.attributes.get("strides", [1, 1]))) ** 0.5)


_RULES: dict[str, Callable[[_Read], float]] = {
    "Add": _added,
    "AveragePool": _average,
    "BatchNormalization": _normalized,
    "Conv": _conv,
    "Div": _divided,
    "Gemm": _gemm,
    "GlobalAveragePool": _everywhere,
    "LeakyRelu": _leaky,
    "MatMul": _matmul,
    "MaxPool": _largest,
    "Mul": _multiplied,
    "PRelu": _prelu,
    "Sub": _added,
}
