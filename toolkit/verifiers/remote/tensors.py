"""What a server of the open inference protocol says of its tensors, checked. Every transport uses these checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.verifiers.entropy import ENTROPY
from toolkit.verifiers.remote.config import LARGEST_BATCH, OpenInference

DATATYPE = "FP32"
# The server may fix the number of crops in a call, and this program fills calls up.
_LARGEST_CALL = 1 << 29
LARGEST_NUMBER = float(np.finfo(np.float32).max)

# Makes a value of the server safe to show.
Shown = Callable[[object], str]


def check_model(metadata: dict[str, Any], remote: OpenInference, shown: Shown) -> int | None:
    """Compare a model's metadata with `remote`. Return the batch size that the server fixes, or None.

    Raises:
        InputError: they do not match.
    """
    spec, output, where = remote.input, remote.output, remote.address
    if metadata.get("name") != remote.model:
        raise InputError(f"{where}: the answer describes {shown(metadata.get('name'))!r}, not {remote.model!r}")
    inputs = [tensor for tensor in _tensors(metadata, "inputs", where) if tensor.get("name") != ENTROPY]
    if [tensor.get("name") for tensor in inputs] != [spec.name]:
        names = shown([tensor.get("name") for tensor in inputs])
        raise InputError(f"{where}: inputs are {names}, but {remote.path} names {spec.name!r}")
    side = [spec.height, spec.width]
    shape = _shape(inputs[0], [*side, 3] if spec.layout == "NHWC" else [3, *side], remote, shown)
    outputs = [t for t in _tensors(metadata, "outputs", where) if t.get("name") == output.name]
    if len(outputs) != 1:
        raise InputError(f"{where}: has no output {output.name!r}, which {remote.path} names")
    _shape(outputs[0], [output.size], remote, shown)
    fixed = shape[0] if shape[0] > 0 else None
    size = (fixed or remote.batch) * 4 * math.prod([*side, 3])
    if size > _LARGEST_CALL:
        raise InputError(
            f"{where}: a call has {fixed or remote.batch} crops of {remote.width} x {remote.height} pixels, "
            f"{size >> 20} MB; at most {_LARGEST_CALL >> 20} MB are sent; make batch smaller"
        )
    return fixed


def check_output(answer: dict[str, Any], remote: OpenInference, shape: list[int], shown: Shown) -> dict[str, Any]:
    """Return the tensor of the embeddings in an answer, checked to have the type FP32 and a shape.

    Raises:
        InputError: there is none, or it is another one.
    """
    name = remote.output.name
    found = [tensor for tensor in _tensors(answer, "outputs", remote.address) if tensor.get("name") == name]
    if len(found) != 1 or found[0].get("datatype") != DATATYPE or found[0].get("shape") != shape:
        got = shown([(tensor.get("name"), tensor.get("datatype"), tensor.get("shape")) for tensor in found])
        raise InputError(f"{remote.address}: the server answers {got}, not {name!r} in {DATATYPE} with shape {shape}")
    return found[0]


def check_numbers(numbers: Any, remote: OpenInference, shape: list[int]) -> NDArray[np.float32]:
    """Return the numbers of a JSON answer as embeddings (N, D).

    Raises:
        InputError: they are not N x D numbers that float32 has.
    """
    name, (rows, columns) = remote.output.name, shape
    if isinstance(numbers, list) and all(isinstance(row, list) and len(row) == columns for row in numbers):
        numbers = [number for row in numbers for number in row]
    # Integers are accepted. Booleans, and strings that look like numbers, are not.
    if (
        not isinstance(numbers, list)
        or len(numbers) != rows * columns
        or not all(type(number) in (int, float) for number in numbers)
    ):
        raise InputError(f"{remote.address}: {name!r} must have {rows} x {columns} numbers")
    if not all(abs(number) <= LARGEST_NUMBER for number in numbers):
        raise InputError(f"{remote.address}: {name!r} has numbers beyond float32")
    return np.array(numbers, np.float32).reshape(shape)


def check_bytes(content: bytes, remote: OpenInference, shape: list[int]) -> NDArray[np.float32]:
    """Return the bytes of a binary answer, float32 with the smallest byte first, as embeddings (N, D).

    Raises:
        InputError: they are not N x D finite numbers.
    """
    name, (rows, columns) = remote.output.name, shape
    if len(content) != 4 * rows * columns:
        raise InputError(
            f"{remote.address}: {name!r} must have {rows} x {columns} numbers in {4 * rows * columns} bytes, "
            f"not {len(content)}"
        )
    numbers = np.frombuffer(content, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(numbers).all():
        raise InputError(f"{remote.address}: every number of {name!r} must be finite")
    return numbers


def _tensors(document: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    tensors = document.get(key)
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise InputError(f"{where}: the answer has no list of {key}")
    return tensors


def _shape(tensor: dict[str, Any], expected: list[int], remote: OpenInference, shown: Shown) -> list[int]:
    """Return a tensor's shape from the metadata, checked to be a batch of shape `expected`. -1 means any size.

    A server that fixes the size of batches makes this program fill them up, so their size is limited.

    Raises:
        InputError: the tensor has another type or shape.
    """
    shape, name = tensor.get("shape"), tensor.get("name")
    if tensor.get("datatype") != DATATYPE:
        found = shown(tensor.get("datatype"))
        raise InputError(f"{remote.address}: {name!r} has type {found!r}; only {DATATYPE} is supported")
    if (
        not isinstance(shape, list)
        or len(shape) != len(expected) + 1
        or not all(type(size) is int for size in shape)
        or any(size not in (-1, e) for size, e in zip(shape[1:], expected, strict=True))
        or (shape[0] != -1 and not 1 <= shape[0] <= LARGEST_BATCH)
    ):
        raise InputError(
            f"{remote.address}: {name!r} has shape {shown(shape)}, but {remote.path} says (N, *{expected})"
        )
    return shape
