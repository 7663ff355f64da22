"""Parity: the differences between ONNX Runtime and the original framework on the same crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto

from toolkit.errors import InputError
from toolkit.faces.rows import Rows
from toolkit.verifiers.manifest import Decision, Metric
from toolkit.verifiers.onnx_file import inputs_of, parse_onnx
from toolkit.verifiers.scores import distances, is_same

# What two forms of a network may differ by, as a share of a distance. In float32, the shipped verifiers and profiles
# differ by at most a tenth of it. In float16, a value has a relative error of 1/2048, and some of them add up.
# Where a model takes bytes, a value between two levels may be rounded to either: some of a crop's 10^4 to 10^5.
_ROUNDING = {TensorProto.FLOAT: 1e-5, TensorProto.FLOAT16: 20 / 2048, TensorProto.UINT8: 1e-3}
# Embeddings that are compared at once.
_AT_ONCE = 1024


def rounding_of(model: bytes, where: Path) -> float:
    """Return what rounding may change in a distance, as a share of it.

    It depends on whether the network computes in float16. Weights that are only stored in float16 have a cast behind.

    Args:
        model: the content of an ONNX file.
        where: the file, for error messages.

    Raises:
        InputError: the content is not a model.
    """
    graph = parse_onnx(model, where).graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    computes = any(halves.intersection(node.input) for node in graph.node if node.op_type != "Cast")
    plain = TensorProto.UINT8 if _of_bytes(graph) else TensorProto.FLOAT
    return _ROUNDING[TensorProto.FLOAT16 if computes else plain]


def takes_bytes(model: bytes, where: Path) -> bool:
    """Return whether the input of an ONNX file is of bytes.

    Raises:
        InputError: the content is not a model.
    """
    return _of_bytes(parse_onnx(model, where).graph)


def _of_bytes(graph: GraphProto) -> bool:
    return any(entry.type.tensor_type.elem_type == TensorProto.UINT8 for entry in inputs_of(graph))


@dataclass(frozen=True)
class Parity:
    """A comparison of one execution provider with the original.

    Attributes:
        provider: the execution provider of ONNX Runtime.
        crops: the number of crops compared.
        pairs: the number of pairs compared.
        largest_embedding_difference: the largest absolute difference of a value of an embedding.
        largest_distance_difference: the largest absolute difference of a pair's distance; None without pairs.
        flips: the number of pairs on which the two decisions differ; 0 without pairs.
    """

    provider: str
    crops: int
    pairs: int
    largest_embedding_difference: float
    largest_distance_difference: float | None
    flips: int


def compare(
    deployed: NDArray[np.float32] | Rows,
    original: NDArray[np.float32] | Rows,
    index: NDArray[np.intp],
    decision: Decision,
    provider: str,
) -> Parity:
    """Compare embeddings of the same crops, and the decisions on pairs of them, a part at a time.

    Args:
        deployed: (M, D), the embeddings from ONNX Runtime.
        original: (M, D), the embeddings from the original framework.
        index: (n, 2), the indices of the two crops of each pair.
        decision: the metric and threshold.
        provider: the execution provider of `deployed`.
    """
    sides = [pair_distances(decision.metric, side, index) for side in (deployed, original)]
    differences = np.abs(sides[0] - sides[1])
    largest = 0.0
    for start in range(0, len(deployed), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        largest = max(largest, float(np.abs(deployed[part] - original[part]).max()))
    return Parity(
        provider=provider,
        crops=len(deployed),
        pairs=len(index),
        largest_embedding_difference=largest,
        largest_distance_difference=float(differences.max()) if len(index) else None,
        flips=int((is_same(decision, sides[0]) != is_same(decision, sides[1])).sum()),
    )


def pair_distances(
    metric: Metric, embeddings: NDArray[np.float32] | Rows, index: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The distances (n,) of pairs, a part at a time.

    Args:
        metric: the metric.
        embeddings: (M, D), the embeddings of all crops.
        index: (n, 2), the indices of the two crops of each pair.
    """
    parts = [index[start : start + _AT_ONCE] for start in range(0, len(index), _AT_ONCE)]
    found = [distances(metric, embeddings[part[:, 0]], embeddings[part[:, 1]]) for part in parts]
    return np.concatenate([np.empty(0), *found])


def check_flips(parities: Sequence[Parity], max_flips: int) -> None:
    """Check that an export decides like the original.

    Raises:
        InputError: more than `max_flips` decisions flipped on a provider.
    """
    for parity in parities:
        if parity.flips > max_flips:
            raise InputError(
                f"{parity.flips} of {parity.pairs} decisions flipped between the original and ONNX Runtime on "
                f"{parity.provider} (largest distance difference {parity.largest_distance_difference:.1e}), but "
                f"--max-flips allows {max_flips}"
            )
