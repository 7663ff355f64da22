"""What a Keras model or a SavedModel may contain, checked by name before anything is built."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, refusing
from toolkit.networks.hdf5 import open_hdf5
from toolkit.plain import parse_json
from toolkit.quiet import import_tensorflow
from toolkit.verifiers.frozen_graph import ALLOWED_OPERATIONS

_LARGEST_CONFIG = 16 << 20
_LARGEST_WEIGHTS = 4 << 30
_LARGEST_GRAPH = 1 << 30
# Deflate can reach about 1000; weights hardly shrink.
_MOST_EXPANSION = 200
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = (_CONFIG, _WEIGHTS, "metadata.json")
# Layers that run code from the file or read other files. All layers that are not Keras's own are refused as well.
_REFUSED_LAYERS = (
    "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "StringLookup", "IntegerLookup",
    "TextVectorization", "FeatureSpace",
)  # fmt: skip
# How Keras stores values that JSON lacks. "__lambda__" is not among them: it is code.
_VALUES = (
    "__tuple__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__keras_tensor__",
    "__typespec__",
)  # fmt: skip
_PLACES = ("keras.layers", "keras.models", "keras.initializers", "keras.regularizers", "keras.constraints")
_KINDS = ("Operation", "Initializer", "Regularizer", "Optimizer", "Loss", "Metric", "DTypePolicy")
# What a SavedModel may compute besides a frozen graph's operations: more arithmetic, functions, branches and variables.
_SAVED_OPERATIONS = ALLOWED_OPERATIONS | {
    "All", "Any", "ArgMax", "ArgMin", "Assert", "AssignVariableOp", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3",
    "BatchToSpaceND", "BroadcastArgs", "BroadcastTo", "Ceil", "Cos", "CropAndResize", "Cumsum", "DepthToSpace",
    "DisableCopyOnRead", "DivNoNan", "Einsum", "EnsureShape", "Equal", "Erf", "Erfc", "Exp", "Fill", "Floor",
    "FloorDiv", "FloorMod", "Gather", "GatherNd", "GatherV2", "Greater", "GreaterEqual", "IdentityN", "If", "Inv",
    "InvertPermutation", "Less", "LessEqual", "LinSpace", "Log", "Log1p", "LogSoftmax", "LogicalAnd", "LogicalNot",
    "LogicalOr", "MirrorPad", "MulNoNan", "NoOp", "NotEqual", "OneHot", "OnesLike", "PartitionedCall", "Prod", "Range",
    "Rank", "ReadVariableOp", "Reciprocal", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor",
    "ResourceGather", "ReverseV2", "Round", "Select", "SelectV2", "Sign", "Sin", "Size", "Softsign", "SpaceToBatchND",
    "SpaceToDepth", "StatefulPartitionedCall", "StatelessIf", "StatelessWhile", "TopKV2", "Unpack", "VarHandleOp",
    "VarIsInitializedOp", "Where", "While", "Xdivy", "ZerosLike", "_Arg", "_Retval",
}  # fmt: skip
# The SavedModel's own saving and restoring, which the loader does not call. It is allowed in these functions only.
_SAVER_OPERATIONS = {
    "MergeV2Checkpoints", "Pack", "RestoreV2", "SaveV2", "Select", "ShardedFilename", "StaticRegexFullMatch",
    "StringJoin",
}  # fmt: skip
_SAVED_FILES = ("saved_model.pb", "fingerprint.pb", "keras_metadata.pb")
_SAVED_FOLDERS = ("variables", "assets", "debug")


def check_keras(path: Path) -> None:
    """Check a Keras model, .keras or .h5, without building it. TensorFlow must have been imported.

    Raises:
        InputError: the file is damaged, too large or encrypted, leads to other files, or has a layer that could run
            code or read files, or that is not Keras's own.
    """
    with refusing(f"{path}: is not a Keras model, or is damaged"):
        if zipfile.is_zipfile(path):
            config = _config_of_archive(path)
        else:
            with open_hdf5(path, str(path)) as file:
                config = file.attrs["model_config"]
        parsed = parse_json(config, path)
        if isinstance(parsed, dict):
            parsed.pop("compile_config", None)  # it is not built
        for found in _classes(parsed):
            _check_class(found, path)


def _config_of_archive(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        strange = [name for name in names if name not in _MEMBERS]
        if strange or len(set(names)) < len(names):
            what = strange[0][:80] if strange else "the same name twice"
            raise InputError(f"{path}: has {what!r} inside; a Keras model has {', '.join(_MEMBERS)}, once each")
        for member in members:
            if member.flag_bits & 1:
                raise InputError(f"{path}: {member.filename} is encrypted; save the model without a password")
            if member.file_size > (_LARGEST_WEIGHTS if member.filename == _WEIGHTS else _LARGEST_CONFIG):
                raise InputError(f"{path}: {member.filename} would be {member.file_size} bytes; this is not a verifier")
            if member.file_size > _MOST_EXPANSION * (member.compress_size + 1024):
                raise InputError(
                    f"{path}: {member.filename} would grow from {member.compress_size} to {member.file_size} bytes; "
                    "this is not a verifier"
                )
        if _WEIGHTS in names:
            with open_hdf5(io.BytesIO(archive.read(_WEIGHTS)), f"{path}: {_WEIGHTS}"):
                pass
        return archive.read(_CONFIG)


def _classes(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every description of an object in a Keras configuration, at any depth."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_class(described: dict[str, Any], path: Path) -> None:
    """Check one object of a configuration. Nothing is imported.

    Raises:
        InputError: it could run code or read files, or it is not one of Keras's own.
    """
    import keras

    name, module = str(described["class_name"])[:80], described.get("module")
    if name in _REFUSED_LAYERS or name == "__lambda__":
        raise InputError(f"{path}: has a {name} layer, which can run code or read files; rebuild the model without it")
    if name in _VALUES:
        return
    kinds = (*(getattr(keras, kind) for kind in _KINDS), keras.constraints.Constraint)
    places = [str(module)] if module else _PLACES
    if name == "Functional" and (not module or str(module).startswith("keras.")):
        return
    for place in places:
        own = place == "keras" or place.startswith("keras.")
        found = getattr(sys.modules.get(place), name, None) if own else None
        if isinstance(found, type) and issubclass(found, kinds):
            return
    raise InputError(f"{path}: has the custom object {name!r}, whose code is not here; rebuild the model without it")


def check_saved_model(path: Path) -> None:
    """Check a SavedModel without loading it.

    Raises:
        InputError: the folder has strange files or links, or the graph has operations that an embedding network does
            not need. The message names them.
    """
    import_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    with refusing(f"{path}: is not a SavedModel"):
        for file in path.rglob("*"):
            parts = file.relative_to(path).parts
            known = parts[0] in (_SAVED_FILES if len(parts) == 1 and not file.is_dir() else _SAVED_FOLDERS)
            if file.is_symlink() or not known:
                raise InputError(f"{path}: has {'/'.join(parts)[:80]!r}, which is not a part of a SavedModel")
        file = path / "saved_model.pb"
        if file.stat().st_size > _LARGEST_GRAPH:
            raise InputError(f"{file}: is larger than {_LARGEST_GRAPH >> 30} GB; this is not a verifier")
        content = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        for meta in content.meta_graphs:
            if meta.asset_file_def or any(node.HasField("asset") for node in meta.object_graph_def.nodes):
                raise InputError(f"{path}: has assets, which are files that it reads; save the model without them")
            _check_operations(meta, path)


def _check_operations(meta: Any, path: Path) -> None:
    bodies = {function.signature.name: list(function.node_def) for function in meta.graph_def.library.function}
    # The nodes that save and restore, and what only they call.
    ends = {meta.saver_def.save_tensor_name.split(":")[0], meta.saver_def.restore_op_name.split(":")[0]}
    top = list(meta.graph_def.node)
    saving = _called([node for node in top if node.name in ends], bodies)
    others = _called([node for node in top if node.name not in ends], bodies)
    saving -= others | set(meta.object_graph_def.concrete_functions)
    refused = {node.op for node in top} - _SAVED_OPERATIONS - set(bodies)
    for name, body in bodies.items():
        allowed = _SAVED_OPERATIONS | (_SAVER_OPERATIONS if name in saving else set())
        refused |= {node.op for node in body} - allowed - set(bodies)
    if refused:
        raise InputError(
            f"{path}: has operations that an embedding network does not need: {', '.join(sorted(refused))[:200]}; "
            "they could access files or run code; save the model without them"
        )


def _called(nodes: list[Any], bodies: dict[str, list[Any]]) -> set[str]:
    """Return the functions that nodes call, directly or through others."""
    called: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        named = {node.op} | {a.func.name for a in node.attr.values()}
        named |= {f.name for a in node.attr.values() for f in a.list.func}
        for name in (named & bodies.keys()) - called:
            called.add(name)
            waiting += bodies[name]
    return called
