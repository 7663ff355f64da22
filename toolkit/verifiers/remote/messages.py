"""The messages of the open inference protocol over gRPC, built from their field numbers instead of generated code.

Only the fields that are used are here. A parser leaves out others.

Source: github.com/kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.verifiers.remote.config import OpenInference
from toolkit.verifiers.remote.tensors import DATATYPE, Shown, check_bytes, check_output

SERVICE = "inference.GRPCInferenceService"
# By message: name, number and type of each field. A star means a repeated field. `Tensor` stands for four messages that
# give these fields the same numbers: of metadata, of an input, of an output, and of an output that is asked for.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "ServerReadyRequest": (),
    "ServerReadyResponse": (("ready", 1, "bool"),),
    "ModelMetadataRequest": (("name", 1, "string"), ("version", 2, "string")),
    "ModelMetadataResponse": (("name", 1, "string"), ("inputs", 4, "Tensor*"), ("outputs", 5, "Tensor*")),
    "ModelInferRequest": (
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("inputs", 5, "Tensor*"),
        ("outputs", 6, "Tensor*"),
        ("raw_input_contents", 7, "bytes*"),
    ),
    "ModelInferResponse": (("outputs", 5, "Tensor*"), ("raw_output_contents", 6, "bytes*")),
    "Tensor": (("name", 1, "string"), ("datatype", 2, "string"), ("shape", 3, "int64*"), ("contents", 5, "Contents")),
    "Contents": (("fp32_contents", 6, "float*"),),
}


@cache
def _classes() -> dict[str, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    kinds = {name: getattr(field, f"TYPE_{name.upper()}") for name in ("bool", "string", "int64", "bytes", "float")}
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package="inference", syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            one = kind.rstrip("*")
            added = described.field.add(name=name, number=number, label=label, type=kinds.get(one, field.TYPE_MESSAGE))
            if one not in kinds:
                added.type_name = f".inference.{one}"
    # A pool of its own: another library may have registered the full messages.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"inference.{name}") for name in _MESSAGES}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


def ready_request() -> bytes:
    """The question whether the server is ready."""
    return b""


def read_ready(content: bytes, where: str) -> bool:
    """Return whether the server is ready.

    Raises:
        InputError: the answer is not valid.
    """
    return bool(_parse("ServerReadyResponse", content, where).ready)


def model_request(remote: OpenInference) -> bytes:
    """The question what the model is."""
    request = _classes()["ModelMetadataRequest"](name=remote.model, version=remote.version or "")
    return bytes(request.SerializeToString())


def read_model(content: bytes, where: str) -> dict[str, Any]:
    """Return the metadata of a model, in the form of the JSON protocol. Only its form is checked.

    Raises:
        InputError: the answer is not valid.
    """
    answer = _parse("ModelMetadataResponse", content, where)
    return {"name": answer.name, "inputs": _described(answer.inputs), "outputs": _described(answer.outputs)}


def infer_request(remote: OpenInference, tensor: NDArray[np.float32]) -> bytes:
    """The request to run the model on an input tensor."""
    classes = _classes()
    given = classes["Tensor"](name=remote.input.name, datatype=DATATYPE, shape=tensor.shape)
    request = classes["ModelInferRequest"](
        model_name=remote.model,
        model_version=remote.version or "",
        inputs=[given],
        outputs=[classes["Tensor"](name=remote.output.name)],
        raw_input_contents=[tensor.astype("<f4").tobytes()],
    )
    return bytes(request.SerializeToString())


def read_inferred(content: bytes, remote: OpenInference, shape: list[int], shown: Shown) -> NDArray[np.float32]:
    """Return the embeddings (N, D) in an answer. The server chooses between raw bytes and a list of floats.

    Raises:
        InputError: the answer is not valid, or has other tensors than `remote` names, or numbers that are not finite.
    """
    answer = _parse("ModelInferResponse", content, remote.address)
    outputs, raw = _described(answer.outputs), answer.raw_output_contents
    at = outputs.index(check_output({"outputs": outputs}, remote, shape, shown))
    if not raw:
        numbers = np.array(answer.outputs[at].contents.fp32_contents, "<f4")
        return check_bytes(numbers.tobytes(), remote, shape)
    if len(raw) != len(outputs):
        raise InputError(f"{remote.address}: the answer has {len(outputs)} outputs, but the bytes of {len(raw)}")
    return check_bytes(raw[at], remote, shape)


def _described(tensors: Any) -> list[dict[str, Any]]:
    return [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in tensors]


def _parse(name: str, content: bytes, where: str) -> Any:
    try:
        return _classes()[name].FromString(content)
    except DecodeError:  # its text is that of the parser's code, and says nothing of the content
        raise InputError(f"{where}: the answer is not a {name} of the open inference protocol") from None
