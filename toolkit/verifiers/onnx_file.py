"""ONNX files: the one door through which a model's bytes come in, with its external data, and walks through its graphs.

A file may keep its weights in other files beside it ("external data"). The toolkit reads them from there, never from
the working folder, and passes on one model that has all its weights inside. The hash of such a model is the SHA-256 of
its file, followed by each of its data files in the order of their names. The hash of any other model is its file's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from toolkit.errors import InputError, refusing
from toolkit.files import checked_path, inside
from toolkit.verifiers.manifest import Manifest

LARGEST_MODEL = 2 << 30
# Every tensor with external data names its file under this key.
_LOCATION = b"location"
# ONNX Runtime's own format starts with this mark. It is parsed by other code and finds data files in other ways.
_ORT_MARK = slice(4, 8), b"ORTM"
_DEEPEST = 16
# The names of ONNX's own operators' domain.
STANDARD = ("", "ai.onnx")
# Since version 4 of the format, constants need not be inputs. Those of a defense are not, and others are not folded.
OLDEST_FORMAT = 4
_BLOCK = 1 << 20


@dataclass(frozen=True)
class OnnxFile:
    """A model with all its weights inside, and the hash of the files that it was read from."""

    content: bytes
    sha256: str


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file and its external data.

    Raises:
        InputError: the file is missing, empty or larger than 2 GB together with its data, or its external data lie
            outside of its folder or do not fit the model.
    """
    content = _read(path)
    if content[_ORT_MARK[0]] == _ORT_MARK[1]:
        raise InputError(f"{path}: is in ONNX Runtime's own format; give the ONNX file that it was made from")
    digest = hashlib.sha256(content)
    if _LOCATION not in content:
        return OnnxFile(content, digest.hexdigest())
    proto = parse_onnx(content, path)
    with refusing(f"{path}: its external data cannot be read"):
        outside = [tensor for tensor in _tensors(proto) if _is_external(tensor)]
        if not outside:
            return OnnxFile(content, digest.hexdigest())
        pieces = [_Piece.of(tensor, path) for tensor in outside]
        files = sorted({piece.file for piece in pieces})
        sizes = (sum(piece.length for piece in pieces), sum(file.stat().st_size for file in files))
        if len(content) + max(sizes) > LARGEST_MODEL:
            raise InputError(f"{path}: is larger than 2 GB together with its external data")
        for file in files:
            _hash_into(digest, file)
        for tensor, piece in zip(outside, pieces, strict=True):
            with piece.file.open("rb") as stream:
                stream.seek(piece.offset)
                tensor.raw_data = stream.read(piece.length)
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
        return OnnxFile(proto.SerializeToString(), digest.hexdigest())


def model_sha256(path: Path) -> str:
    """Return the hash of a model: of its file and, if it has any, of its external data.

    Raises:
        InputError: as in `read_onnx`.
    """
    return read_onnx(path).sha256


def verifier_sha256(manifest: Manifest) -> str:
    """Return the hash of a verifier's model; for a remote verifier, of what its answers depend on.

    Raises:
        InputError: as in `read_onnx`.
    """
    if manifest.service is not None:
        return hashlib.sha256(manifest.service.encode()).hexdigest()
    return model_sha256(manifest.model)


def parse_onnx(content: bytes, path: Path) -> onnx.ModelProto:
    """Parse a serialized model.

    Args:
        content: the model.
        path: the file that it came from, for the error message.

    Raises:
        InputError: it is not an ONNX file, its graphs are nested too deeply, or a name in it is not UTF-8.
    """
    with refusing(f"{path}: is not an ONNX file"):
        proto = onnx.load_model_from_string(content)
    for graph in graphs_of(proto.graph, path):
        # Protobuf gives bytes where a text is not UTF-8.
        if any(isinstance(name, bytes) for name in _names(graph)):
            raise InputError(f"{path}: a name in it is not UTF-8; the file is damaged")
    return proto


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield graph.name
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def graphs_of(graph: onnx.GraphProto, path: Path) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all graphs inside its nodes, such as the bodies of If and Loop.

    Raises:
        InputError: they are nested too deeply.
    """
    waiting = [(graph, 1)]
    while waiting:
        found, depth = waiting.pop()
        if depth > _DEEPEST:
            raise InputError(f"{path}: has graphs inside graphs more than {_DEEPEST} deep; this is not a verifier")
        yield found
        waiting += [(body, depth + 1) for node in found.node for body in bodies(node)]


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a node has as attributes, such as the branches of an If."""
    return [graph for a in node.attribute for graph in (*([a.g] if a.HasField("g") else []), *a.graphs)]


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's standard operator set that a model uses; 0 if it uses none."""
    return next((o.version for o in model.opset_import if o.domain in STANDARD), 0)


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return what a graph must be given: its inputs without those that are constants."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def rename_reads(nodes: list[onnx.NodeProto], old: str, new: str) -> int:
    """Make nodes read the value `new` instead of `old`, also inside their bodies. Return the number of changes.

    A body that defines a value of that name itself keeps it.
    """
    changes = 0
    for node in nodes:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
                changes += 1
        for body in bodies(node):
            if old not in _defined(body):
                changes += rename_reads(list(body.node), old, new)
    return changes


def in_order(nodes: list[onnx.NodeProto], path: Path) -> list[onnx.NodeProto]:
    """Return nodes so that each comes after those whose values it reads, also inside its bodies.

    Nodes that are in such an order already keep it.

    Raises:
        InputError: nodes read each other in a circle.
    """
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [sorted({maker[name] for name in names_read(node) if name in maker}) for node in nodes]
    order: list[int] = []
    done, begun = set[int](), set[int]()
    for start in range(len(nodes)):
        waiting = [start]
        while waiting:
            i = waiting[-1]
            missing = [] if i in done else [n for n in needs[i] if n not in done]
            if missing and i in begun:
                raise InputError(f"{path}: node {nodes[i].name!r} ({nodes[i].op_type}) depends on itself")
            if missing:
                begun.add(i)
                waiting += missing[::-1]
                continue
            waiting.pop()
            if i not in done:
                done.add(i)
                order.append(i)
    return [nodes[i] for i in order]


def names_read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, also from inside its bodies."""
    found = set(node.input)
    for body in bodies(node):
        inside = {value.name for value in body.output}.union(*(names_read(inner) for inner in body.node))
        found |= inside - _defined(body)
    return found


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the values of a node's attributes by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def readers(nodes: list[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    """Return the nodes that read a value, directly or anywhere inside their bodies.

    This looks for the name only. It does not follow the rules of scopes, so that it cannot miss a reader.
    """
    return [n for n in nodes if name in n.input or any(_mentions(body, name) for body in bodies(n))]


def _mentions(graph: onnx.GraphProto, name: str) -> bool:
    return any(value.name == name for value in graph.output) or bool(readers(list(graph.node), name))


def _defined(graph: onnx.GraphProto) -> set[str]:
    values = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return values | {name for node in graph.node for name in node.output}


@dataclass(frozen=True)
class _Piece:
    """The bytes of one tensor in a data file."""

    file: Path
    offset: int
    length: int

    @classmethod
    def of(cls, tensor: onnx.TensorProto, path: Path) -> _Piece:
        """Find and check the bytes of a tensor.

        Raises:
            InputError: the file is missing or outside of the model's folder, or the bytes do not fit.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        where = f"{path}: tensor {tensor.name[:80]!r}"
        file = _beside(path, entries.get("location", ""), f"{where}: its external data")
        if not file.is_file():
            raise InputError(f"{where}: its external data {file.name[:80]!r} are missing; put them beside the model")
        numbers = [entries.get(key, default) for key, default in (("offset", "0"), ("length", ""))]
        if not all(len(n) <= 15 and n.isascii() and (n.isdecimal() or not n) for n in numbers):
            raise InputError(f"{where}: its external data have an offset or a length that is no number")
        offset, size = int(numbers[0] or 0), file.stat().st_size
        length = int(numbers[1]) if numbers[1] else _length(tensor)
        if length != _length(tensor) or offset + length > size:
            raise InputError(
                f"{where}: needs {_length(tensor)} bytes, but names {length} bytes at {offset} of {size} in its "
                "external data; the files do not belong together"
            )
        return cls(file, offset, length)


def _beside(path: Path, location: str, what: str) -> Path:
    """Return a data file in the model's folder. If the model is a link, its data may be links into the same folder."""
    real = path.resolve().parent
    found = (path.parent / checked_path(location, what)).resolve()
    return found if found.parent == real and found.is_file() else inside(path.parent, location, what)


def _length(tensor: onnx.TensorProto) -> int:
    """Return how many bytes a tensor has."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if min(tensor.dims, default=0) < 0 or kind.kind == "O":
        raise InputError(f"tensor {tensor.name[:80]!r} has a type or a shape that cannot lie in external data")
    count = math.prod(tensor.dims)
    packed = {
        onnx.TensorProto.INT4: 2, onnx.TensorProto.UINT4: 2, onnx.TensorProto.FLOAT4E2M1: 2,
    }.get(tensor.data_type)  # fmt: skip
    return -(-count // packed) if packed else count * int(kind.itemsize)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, wherever it is."""
    tops = [proto.graph, *(training.algorithm for training in proto.training_info)]
    within = [body for function in proto.functions for node in function.node for body in bodies(node)]
    for top in (*tops, *within):
        for graph in graphs_of(top, Path()):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            yield from _tensors_of_nodes(graph.node)
    for function in proto.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for a in node.attribute:
            if a.HasField("t"):
                yield a.t
            yield from a.tensors
            for sparse in (*([a.sparse_tensor] if a.HasField("sparse_tensor") else []), *a.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    try:
        size = path.stat().st_size
        if not 0 < size <= LARGEST_MODEL:
            raise InputError(f"{path}: has {size} bytes; a model must have 1 byte to 2 GB")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _hash_into(digest: hashlib._Hash, file: Path) -> None:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
