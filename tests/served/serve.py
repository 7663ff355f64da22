"""Serve the ONNX files of a folder with KServe over HTTP and gRPC, on the loopback: serve.py FOLDER PORT GRPC_PORT.

A file that changes is loaded anew. Each line of FOLDER/faults is for one request: `busy` refuses it, `slow` is late.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import kserve
import onnxruntime
from fastapi import HTTPException
from grpc import aio
from grpc_interceptor.exceptions import ResourceExhausted
from kserve import model_server
from kserve.protocol.rest.server import RESTServer

SECONDS = 1.5


class Onnx(kserve.Model):
    def __init__(self, path: Path) -> None:
        super().__init__(path.stem)
        self.path, self.loaded = path, 0
        self.ready = True

    def session(self) -> Any:
        changed = self.path.stat().st_mtime_ns
        if changed != self.loaded:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.runs = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
            self.loaded = changed
        return self.runs

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        await self.fault(grpc=payload.from_grpc)
        names = [output.name for output in self.session().get_outputs()]
        found = self.session().run(names, {tensor.name: tensor.as_numpy() for tensor in payload.inputs})
        outputs = []
        for name, numbers in zip(names, found, strict=True):
            output = kserve.InferOutput(name, list(numbers.shape), "FP32")
            output.set_data_from_numpy(numbers, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return kserve.InferResponse(payload.id or "1", self.name, outputs, requested_outputs=payload.request_outputs)

    async def fault(self, *, grpc: bool) -> None:
        faults = self.path.parent / "faults"
        lines = faults.read_text().split() if faults.exists() else []
        if not lines:
            return
        faults.write_text("\n".join(lines[1:]))
        if lines[0] == "slow":
            await asyncio.sleep(SECONDS)
        elif grpc:
            raise ResourceExhausted("too many requests")
        else:
            raise HTTPException(429, "too many requests", {"Retry-After": "1"})

    def get_input_types(self) -> list[dict[str, Any]]:
        return [described(tensor) for tensor in self.session().get_inputs()]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [described(tensor) for tensor in self.session().get_outputs()]


def described(tensor: Any) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
    return {"name": tensor.name, "datatype": "FP32", "shape": shape}


class Local(RESTServer):
    """KServe listens on every interface."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.config.host = "127.0.0.1"


def main(folder: Path, port: int, grpc_port: int) -> None:
    add = aio.Server.add_insecure_port
    aio.Server.add_insecure_port = lambda server, address: add(server, address.replace("[::]", "127.0.0.1"))
    model_server.RESTServer = Local
    server = kserve.ModelServer(http_port=port, grpc_port=grpc_port, enable_latency_logging=False)
    server.start([Onnx(path) for path in sorted(folder.glob("*.onnx"))])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
