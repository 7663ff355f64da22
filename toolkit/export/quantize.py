"""Quantization of verifiers to fp16 and int8 with ONNX Runtime's tools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import InputError, refusing
from toolkit.pixels import to_unit
from toolkit.profiles.harden import PREFIX, check_defense, checked_graph, is_hardened
from toolkit.tables import edit_toml
from toolkit.verifiers.edge import KIND_OF, model_input
from toolkit.verifiers.entropy import ENTROPY, seeded_entropy
from toolkit.verifiers.manifest import Input, Manifest
from toolkit.verifiers.normalize import Wanted, batch_of, normalized
from toolkit.verifiers.onnx_file import bodies, graphs_of, parse_onnx
from toolkit.verifiers.placing import check_output, write_verifier
from toolkit.verifiers.runtime import open_model, try_model
from toolkit.verifiers.trial import ONNX, is_shipped, run_apart

Precision = Literal["int8", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# Since opset 13, QuantizeLinear supports a scale per channel.
_OLDEST_OPSET = 13
_QUANTIZED = ("Conv", "Gemm", "MatMul")
_DONE = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "MatMulNBits",
}  # fmt: skip
_CONSTANTS = ("value", "value_float", "value_floats", "value_int", "value_ints")
_BATCH = 8
# The tools run the model on every crop, and keep several copies of it.
_TOOLS = replace(ONNX, seconds=120, seconds_per_megabyte=10, memory=3 << 30, memory_per_byte=24)
_FLOAT, _HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@dataclass(frozen=True)
class QuantizedFile:
    """The files that `write_quantized` wrote: the model, its manifest, its SHA-256, and the sizes before and after."""

    path: Path
    manifest: Path
    sha256: str
    bytes_before: int
    bytes_after: int


def write_quantized(
    manifest: Manifest, precision: Precision, output: Path, calibration: NDArray[np.uint8], source: str
) -> QuantizedFile:
    """Write a quantized variant with the same input, output and threshold, and a manifest beside it.

    Args:
        manifest: the verifier, hardened or not.
        precision: see `quantized`.
        output: the .onnx file to write.
        calibration: (N, H, W, 3) uint8, crops to calibrate the ranges of int8; not used for fp16.
        source: where the crops come from, for the manifest's provenance.

    Raises:
        InputError: the verifier cannot be quantized, or the output cannot be written.
        UsageError: the output would overwrite the verifier, or does not end in .onnx.
    """
    import tomlkit

    check_output(output, manifest, "quantized")
    model = open_model(manifest)
    proto = quantized(model.content, manifest, precision, calibration)
    how = f"{precision} by ONNX Runtime {onnxruntime.__version__}"
    if precision == "int8":
        how += f", static, per channel, calibrated on {len(calibration)} crops of {source}"
    document = edit_toml(manifest.path)
    document["name"] = f"{manifest.name}+{precision}"
    document["model"]["file"] = output.name
    document["model"].pop("sha256", None)
    document["model"]["provenance"] = f"{manifest.provenance}; {how}"
    # The checkpoint belongs to the original verifier.
    document.pop("checkpoint", None)
    document["output"].pop("lipschitz", None)  # rounding has no slope that is bounded
    metadata = {p.key: p.value for p in proto.metadata_props if not p.key.startswith("onnx.")}
    metadata |= {"sixpixels.manifest": tomlkit.dumps(document), "sixpixels.quantized": how}
    metadata["sixpixels.original_sha256"] = model.sha256
    onnx.helper.set_model_props(proto, metadata)
    content = proto.SerializeToString()
    written = write_verifier(output, content, document)
    return QuantizedFile(written.path, written.manifest, written.sha256, len(model.content), len(content))


def quantized(
    model: bytes, manifest: Manifest, precision: Precision, calibration: NDArray[np.uint8]
) -> onnx.ModelProto:
    """Quantize a serialized verifier. Its input and output stay float32.

    int8 is static quantization of Conv, Gemm and MatMul in QDQ form. Weights are unsigned with one scale per channel.
    Activations are unsigned with the range that they have on `calibration`. fp16 converts all operators. In both cases
    the nodes of a profile (named `sixpixels/...`) stay float32 and get the unchanged input, so that the defense is
    exactly the audited one.

    Raises:
        InputError: `checked_graph` rejects the model, it is already quantized, it has nothing to quantize, ONNX
            Runtime's tools fail on it, or there are no crops for calibration.
    """
    where = manifest.model
    proto = checked_graph(model, manifest)
    _unfold_constants(proto.graph)
    if manifest.vote is not None:
        raise InputError(f"{where}: decides by the vote of a profile; quantize the original verifier, and harden that")
    if _is_quantized(proto.graph):
        raise InputError(f"{where}: is quantized already; give the original verifier")
    whole = [*graphs_of(proto.graph, where), *proto.functions]
    if not any(n.op_type in _QUANTIZED for part in whole for n in part.node if not n.name.startswith(PREFIX)):
        raise InputError(f"{where}: has no {', '.join(_QUANTIZED)} to quantize; use it without quantization")
    if precision == "int8" and not len(calibration):
        raise InputError(f"{where}: int8 needs crops for calibration; give --pairs")
    try_model(model, manifest)
    # Folding takes branches whose condition is a constant.
    wanted = Wanted(opset=_OLDEST_OPSET, folded=any(bodies(node) for node in proto.graph.node))
    proto = parse_onnx(normalized(model, manifest, wanted), where)
    if any(bodies(node) for node in proto.graph.node):
        raise InputError(f"{where}: has branches or loops (If, Loop, Scan); export it without to quantize it")
    _unfold_constants(proto.graph)
    for node in proto.graph.node:
        # The tools below select nodes by name, so every node needs one.
        node.name = node.name or f"{node.output[0]}#"
    result = _converted(proto, manifest, precision, calibration, trusted=is_shipped(model))
    if is_hardened(proto.graph):
        check_defense(result, manifest)
    return result


def _converted(
    proto: onnx.ModelProto, manifest: Manifest, precision: Precision, crops: NDArray[np.uint8], *, trusted: bool
) -> onnx.ModelProto:
    """Run ONNX Runtime's tools, in a process of its own unless the model is trusted.

    Raises:
        InputError: the tools fail, die or hang.
    """
    where, content = str(manifest.model), proto.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        about = {
            "where": where, "precision": precision, "folder": folder, "input": asdict(manifest.input),
            "model": len(content), "crops": crops.shape,
        }  # fmt: skip
        allowance = replace(_TOOLS, seconds=_TOOLS.seconds + len(crops))
        whole = content + crops.tobytes()
        result = _convert(about, whole) if trusted else run_apart(_convert, about, whole, where, allowance)
    return parse_onnx(result, manifest.model)


def _convert(about: dict[str, Any], content: bytes) -> bytes:
    """Convert a model. The content is the model, followed by the crops."""
    where, precision, spec = about["where"], about["precision"], Input(**about["input"])
    crops = np.frombuffer(content, np.uint8, offset=about["model"]).reshape(about["crops"])
    with refusing(f"{where}: ONNX Runtime's tools cannot convert it to {precision}"):
        proto = onnx.load_model_from_string(content[: about["model"]])
        names = [(node.name, node.op_type) for node in proto.graph.node]
        defense = [name for name, _ in names if name.startswith(PREFIX)]
        if precision == "fp16":
            return bytes(_fp16(proto, defense).SerializeToString())
        chosen = [name for name, kind in names if kind in _QUANTIZED and not name.startswith(PREFIX)]
        return bytes(_int8(proto, chosen, _Reader(proto, spec, crops), Path(about["folder"])).SerializeToString())


def _fp16(proto: onnx.ModelProto, defense: list[str]) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    # Max and Min support float16 since opset 13. In float32 each of them would need two casts.
    blocked = [op for op in DEFAULT_OP_BLOCK_LIST if op not in {"Max", "Min"}]
    with _quiet():
        half: onnx.ModelProto = convert_float_to_float16(
            proto, keep_io_types=True, op_block_list=blocked, node_block_list=defense
        )
        _skip_round_trips(half.graph)
        OnnxModel(half).topological_sort()
    return half


def _skip_round_trips(graph: onnx.GraphProto) -> None:
    """Remove pairs of casts from float32 to float16 and back between two float32 nodes.

    The converter casts every value to float16. It adds one cast for each consumer, and all these casts have the same
    name.
    """
    halved = {n.output[0]: n.input[0] for n in graph.node if _casts(n, _HALF)}
    back = {n.output[0]: halved[n.input[0]] for n in graph.node if _casts(n, _FLOAT) and n.input[0] in halved}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = back.get(name, name)
    ends = {value.name for value in graph.output}
    # Keep one of several casts with the same output. Then remove unused casts repeatedly, because removing one may
    # leave the cast before it unused.
    nodes = list({node.output[0]: node for node in graph.node}.values())
    while True:
        used = {name for node in nodes for name in node.input} | ends
        kept = [n for n in nodes if n.op_type != "Cast" or n.output[0] in used]
        if len(kept) == len(nodes):
            break
        nodes = kept
    del graph.node[:]
    graph.node.extend(nodes)


def _int8(proto: onnx.ModelProto, nodes: list[str], reader: _Reader, folder: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    # Without this mark, the quantizer warns that its own preprocessing is missing. That preprocessing is done above.
    proto = onnx.shape_inference.infer_shapes(proto)
    proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    path = folder / "int8.onnx"
    with _quiet():
        quantize_static(
            proto,
            path,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_quantize=nodes,
            per_channel=True,
            # Signed weights overflow the 16-bit sums of x86 processors without VNNI.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
        )
    return onnx.load(path)


class _Reader:
    """Provides crops for ONNX Runtime's calibration, batch by batch.

    If the graph fixes the batch size, the last batch is filled up with its last crop.
    """

    def __init__(self, proto: onnx.ModelProto, spec: Input, crops: NDArray[np.uint8]) -> None:
        self.random = any(tensor.name == ENTROPY for tensor in proto.graph.initializer)
        entry = next(value for value in proto.graph.input if value.name == spec.name)
        fixed = batch_of(proto, spec.name)
        self.kind = KIND_OF[entry.type.tensor_type.elem_type]
        self.size = fixed or _BATCH
        missing = -len(crops) % fixed if fixed else 0
        self.spec, self.at = spec, 0
        self.crops = np.concatenate([crops, np.repeat(crops[-1:], missing, axis=0)])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch, or None after the last one. A random profile draws the same in every calibration."""
        batch = to_unit(self.crops[self.at : self.at + self.size])
        self.at += self.size
        if not len(batch):
            return None
        feed: dict[str, NDArray[Any]] = {self.spec.name: model_input(batch, self.spec, self.kind)}
        return feed | ({ENTROPY: seeded_entropy(batch, 0)} if self.random else {})


def _unfold_constants(graph: onnx.GraphProto) -> None:
    """Convert constant nodes and constants stored as float16 with a Cast to float32 initializers.

    The converters support only such initializers.
    """
    constants = [n for n in graph.node if n.op_type == "Constant" and n.attribute[0].name in _CONSTANTS]
    for node in constants:
        given = node.attribute[0]
        if given.name == "value":
            tensor = given.t
        else:
            kind = np.float32 if "float" in given.name else np.int64
            tensor = onnx.numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(given), kind))
        graph.initializer.append(tensor)
        graph.initializer[-1].name = node.output[0]
    _remove(graph, constants)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = [n for n in graph.node if _casts(n, _FLOAT) and n.input[0] in stored and not n.output[0].startswith(PREFIX)]
    for node in casts:
        value = onnx.numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(value, node.output[0]))
    _remove(graph, casts)
    used = {name for node in graph.node for name in node.input}
    for tensor in [stored[n.input[0]] for n in casts if n.input[0] not in used]:
        graph.initializer.remove(tensor)


def _is_quantized(graph: onnx.GraphProto) -> bool:
    """Return whether the verifier has integer operators or float16 values. A profile's own constants do not count."""
    halves = (tensor.data_type == _HALF and not tensor.name.startswith(PREFIX) for tensor in graph.initializer)
    return any(halves) or any(node.op_type in _DONE or _casts(node, _HALF) for node in graph.node)


def _casts(node: onnx.NodeProto, to: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == to for a in node.attribute)


def _remove(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    gone = {node.output[0] for node in nodes}
    kept = [node for node in graph.node if node.output[0] not in gone]
    del graph.node[:]
    graph.node.extend(kept)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings that the converters write to the root logger."""
    log = getLogger()
    level = log.level
    log.setLevel(ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
