"""Which optimizer folds exported models: ONNX Runtime's basic one, onnxslim or onnxsim.

    python benchmarks/optimizers.py --python A/bin/python [--dlib ../shared/verifiers/dlib_resnet.onnx]

The models are those of `tests/kinds.py`, the shipped verifier, and dlib's. The optimizers run in an environment of
their own (`pip install onnx onnxruntime onnxslim onnxsim`). A model is equal if its inputs and outputs keep their names
and types, its values differ by at most 1e-5 of the largest, a second call gives the same bytes, and it has operators
of ONNX's own domain alone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
OPTIMIZERS = ("ONNX Runtime", "onnxslim", "onnxsim")
TOLERANCE = 1e-5


def optimized(name: str, content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    if name == "onnxslim":
        return bytes(importlib.import_module("onnxslim").slim(model).SerializeToString())
    if name == "onnxsim":
        return bytes(importlib.import_module("onnxsim").simplify(model)[0].SerializeToString())
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return (Path(folder) / "model.onnx").read_bytes()


def ran(content: bytes) -> tuple[list[Any], list[Any]]:
    """Names and types of the inputs and outputs, and the outputs for random pixels."""
    ort = importlib.import_module("onnxruntime")
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}[entry.type]
    shape = [side if isinstance(side, int) else 2 for side in entry.shape]
    x = (np.random.default_rng(0).random(shape) * 255).astype(kind)
    signature = [(value.name, value.type) for value in (*session.get_inputs(), *session.get_outputs())]
    return signature, session.run(None, {entry.name: x})


def judged(name: str, content: bytes) -> tuple[str, int]:
    """What became of a model, and the number of its nodes."""
    try:
        found = optimized(name, content)
        if optimized(name, content) != found:
            return "other bytes in a second call", 0
        (signature, right), (kept, values) = ran(content), ran(found)
    except Exception as error:  # noqa: BLE001 - whatever the optimizers raise
        return f"fails ({(str(error).strip() or type(error).__name__).splitlines()[0][:100]})", 0
    nodes = onnx.load_model_from_string(found).graph.node
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(right, values, strict=True)]
    if signature != kept or any(np.abs(a - b).max() > TOLERANCE * np.abs(a).max() for a, b in pairs):
        return "other values", 0
    if {n.domain for n in nodes} - {"", "ai.onnx"}:
        return "operators of other domains", 0
    return "", len(nodes)


def work(folder: Path) -> None:
    importlib.import_module("onnxruntime").set_default_logger_severity(4)
    lines = []
    for name in OPTIMIZERS:
        start, faults, nodes = time.perf_counter(), [], 0
        for path in sorted(folder.glob("*.onnx")):
            why, count = judged(name, path.read_bytes())
            nodes += count
            if why:
                faults.append(f"    {path.stem}: {why}")
        total = len(list(folder.glob("*.onnx")))
        lines.append(f"{name}: {total - len(faults)} of {total} equal, {time.perf_counter() - start:.1f} s")
        lines += faults
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="a Python with onnx, onnxruntime, onnxslim and onnxsim")
    parser.add_argument("--dlib", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return
    sys.path.insert(0, str(ROOT))
    from tests.kinds import KINDS
    from toolkit.files import bundled

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, kind in KINDS.items():
            onnx.save(kind.model(), folder / f"{title}.onnx")
        shutil.copy(bundled("models") / "facenet-mini" / "facenet-mini.onnx", folder)
        if args.dlib:
            shutil.copy(args.dlib, folder)
        command = [args.python or sys.executable, __file__, "--worker", name]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603 - a user's Python


if __name__ == "__main__":
    main()
