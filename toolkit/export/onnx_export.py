"""Export of a checkpoint to a checked ONNX file with tf2onnx."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from toolkit import __version__
from toolkit.errors import InputError, UnavailableError
from toolkit.files import sha256_of
from toolkit.quiet import import_tensorflow
from toolkit.tables import edit_toml
from toolkit.verifiers.checkpoints import load_network
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.placing import write_verifier

# Constants with fewer values than this are not stored as float16, because it would save too little.
_SMALLEST_COMPACT = 1024


@dataclass(frozen=True)
class ExportResult:
    """The written files: the model, its manifest, the SHA-256 of the model, and its operator set."""

    path: Path
    manifest: Path
    sha256: str
    opset: int


def export_onnx(manifest: Manifest, output: Path, opset: int = 17) -> ExportResult:
    """Export the checkpoint of `manifest` to the ONNX file `output`, with a manifest beside it.

    The file has the same input as the checkpoint and accepts any batch size. Its metadata contain the manifest, the
    hash of the checkpoint, and the versions of the tools. Constants that float16 represents exactly are stored as
    float16 and cast in the graph.

    Raises:
        InputError: the checkpoint cannot be loaded or converted, or the output cannot be written.
        UnavailableError: there is no checkpoint, or TensorFlow or tf2onnx is not installed.
    """
    if manifest.checkpoint is None:
        raise UnavailableError(f"{manifest.path}: has no [checkpoint]; add one to export it")
    if output.suffix != ".onnx":
        raise InputError(f"{output}: the name of an exported model must end in .onnx")
    tf = import_tensorflow()
    network = load_network(manifest.checkpoint, manifest.output.normalize)
    spec = manifest.input
    sides = (spec.height, spec.width)
    shape = (None, *sides, 3) if spec.layout == "NHWC" else (None, 3, *sides)
    signature = [tf.TensorSpec(shape, tf.float32, name=spec.name)]

    @tf.function(input_signature=signature, autograph=False)
    def exported(x: Any) -> Any:
        return {manifest.output.name: network(x)}

    origin = {
        "sixpixels.manifest": manifest.path.read_text(encoding="utf-8"),
        "sixpixels.checkpoint_sha256": sha256_of(manifest.checkpoint.path),
    }
    content = convert(exported, signature, opset, origin, manifest.checkpoint.path)
    written = write_verifier(output, content, *_describe(manifest, output))
    return ExportResult(written.path, written.manifest, written.sha256, opset)


def convert(
    function: Any,
    signature: list[Any],
    opset: int,
    origin: dict[str, str],
    source: Path,
    *,
    channels_first: bool = False,
) -> bytes:
    """Convert a `tf.function` to ONNX. Check, compact and serialize the model.

    Args:
        function: a `tf.function` for `signature` that returns a dictionary with one output.
        signature: one `tf.TensorSpec`, whose first dimension is the batch.
        opset: the ONNX operator set.
        origin: metadata about the origin of the weights. The versions of the tools are added.
        source: the converted file, for error messages.
        channels_first: the model takes and gives images (N, C, H, W), although the function has the channels last.

    Raises:
        InputError: tf2onnx cannot convert the function.
        UnavailableError: tf2onnx is not installed.
    """
    tf = import_tensorflow()
    try:
        import tf2onnx
    except ImportError as error:
        raise UnavailableError(
            'this needs tf2onnx, which is not installed: pip install "sixpixels[tensorflow]"'
        ) from error
    turned = {"inputs_as_nchw": [signature[0].name], "outputs_as_nchw": ["output"]} if channels_first else {}
    try:
        model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=opset, **turned)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{source}: tf2onnx cannot convert it ({error})") from error
    for value in (*model.graph.input, *model.graph.output):
        names = ("batch", "", "height", "width") if channels_first else ("batch",)
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if name:
                dimension.dim_param = name
    _compact(model.graph)
    for key, text in {
        **origin,
        "sixpixels.version": __version__,
        "tensorflow.version": tf.__version__,
        "tf2onnx.version": version("tf2onnx"),
        "onnx.version": onnx.__version__,
    }.items():
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return bytes(model.SerializeToString())


def _compact(graph: onnx.GraphProto) -> None:
    """Store float32 constants as float16 with a Cast if this is exact. ONNX Runtime removes the Cast when it loads."""
    casts = []
    for tensor in graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < _SMALLEST_COMPACT:
            continue
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if np.array_equal(half.astype(np.float32), value):
            name, stored = tensor.name, f"{tensor.name}_half"
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, stored))
            casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def _describe(manifest: Manifest, output: Path) -> tuple[Any, Path]:
    """Return a manifest for the exported file, and where it belongs.

    It keeps the checkpoint only if it is inside the file's folder.
    """
    document = edit_toml(manifest.path)
    if manifest.checkpoint is not None:
        checkpoint, folder = manifest.checkpoint.path.resolve(), output.parent.resolve()
        if checkpoint.is_relative_to(folder):
            document["checkpoint"]["file"] = checkpoint.relative_to(folder).as_posix()
        else:
            del document["checkpoint"]
    in_place = manifest.model.resolve() == output.resolve()
    return document, manifest.path if in_place else output.with_suffix(".toml")
