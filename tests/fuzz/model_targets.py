"""What a hostile model can reach: each target has a name, a maker of mutants, and a function that reads one.

`TARGETS` is a list of `(name, make_mutant(generator) -> bytes, run(content, folder))`. `run` returns None if the
toolkit accepts the file, and raises a `SixpixelsError` if it refuses it. Anything else is a fault.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.mutate_models import mutator
from tests.models import write_linear
from toolkit.export.quantize import write_quantized
from toolkit.profiles.harden import write_hardened
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.checkpoints import load_network
from toolkit.verifiers.manifest import Checkpoint, Manifest, read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier

Target = tuple[str, Callable[[np.random.Generator], bytes], Callable[[bytes, Path], None]]

SIDE, SIZE = 8, 3
_RNG = np.random.default_rng(0)
_CROPS = _RNG.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


def _constant(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(_RNG.normal(size=shape).astype(np.float32), name)


@cache
def seeds() -> tuple[bytes, ...]:
    """Small verifiers (N, 8, 8, 3) -> (N, 3): a product, a convolutional network, and one with branches."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_linear(Path(folder), weights=np.ones((SIDE * SIDE * 3, SIZE), np.float32), side=SIDE)
        linear = path.read_bytes()
    network, branching = onnx.load_model_from_string(linear), onnx.load_model_from_string(linear)
    layers = [
        helper.make_node("Transpose", ["input"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "k"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Pad", ["m", "pads"], ["p"], mode="reflect"),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["embedding"], transB=1),
    ]
    del network.graph.node[:], network.graph.initializer[:]
    network.graph.node.extend(layers)
    network.graph.initializer.extend([_constant("k", 4, 3, 3, 3), _constant("w", SIZE, 4)])
    network.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "pads"))
    bodies = {}
    for name in ("then_branch", "else_branch"):
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", SIZE])
        nodes = [
            helper.make_node("Flatten", ["input"], [f"{name}f"]),
            helper.make_node("MatMul", [f"{name}f", "weights"], [name]),
        ]
        bodies[name] = helper.make_graph(nodes, name, [], [out])
    del branching.graph.node[:]
    branching.graph.node.append(helper.make_node("If", ["always"], ["embedding"], **bodies))  # type: ignore[arg-type]
    branching.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    return linear, network.SerializeToString(), branching.SerializeToString()


@cache
def frozen_seed() -> bytes:
    """A small frozen graph with a branch on `phase_train`."""
    import tensorflow as tf

    v1 = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, (None, SIDE, SIDE, 3), name="input")
        phase = v1.placeholder(tf.bool, (), name="phase_train")
        off, on = tf.raw_ops.Switch(data=x, pred=phase)
        kept, _ = tf.raw_ops.Merge(inputs=[off + 1.0, on * 2.0])
        convolved = tf.nn.relu(tf.nn.conv2d(kept, np.ones((3, 3, 3, 4), np.float32), 2, "SAME"))
        tf.identity(tf.matmul(tf.reduce_mean(convolved, (1, 2)), np.ones((4, SIZE), np.float32)), name="embeddings")
    return graph.as_graph_def().SerializeToString()


def _manifest(content: bytes, folder: Path) -> Manifest:
    path = write_linear(folder, weights=np.zeros((SIDE * SIDE * 3, SIZE), np.float32), side=SIDE)
    path.write_bytes(content)
    return read_manifest(path)


def load_verifier(content: bytes, folder: Path) -> None:
    """Load an ONNX file and run it."""
    RuntimeVerifier(_manifest(content, folder)).embed(np.float32(_CROPS / 255))


def harden(content: bytes, folder: Path) -> None:
    """Harden an ONNX file."""
    write_hardened(_manifest(content, folder), find_profile("mean3"), folder / "hardened.onnx")


def detect(content: bytes, folder: Path) -> None:
    """Harden an ONNX file with a detector, which changes its output too."""
    write_hardened(_manifest(content, folder), find_profile("detector"), folder / "watched.onnx")


def quantize(content: bytes, folder: Path) -> None:
    """Quantize an ONNX file, to int8 or fp16."""
    precision: Any = "int8" if len(content) % 2 else "fp16"
    write_quantized(_manifest(content, folder), precision, folder / "small.onnx", _CROPS, "fuzz")


def gradients(content: bytes, folder: Path) -> None:
    """Compute a gradient of an ONNX file."""
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    verifier = TensorFlowVerifier(_manifest(content, folder))
    verifier.distances_and_gradients(np.float32(_CROPS / 255), np.zeros((2, SIZE), np.float32))


def frozen(content: bytes, folder: Path) -> None:
    """Load a frozen graph."""
    path = folder / "frozen.pb"
    path.write_bytes(content)
    load_network(Checkpoint(path, "frozen-graph", None, {}), normalize=True)


def frozen_gradients(content: bytes, folder: Path) -> None:
    """Compute a gradient of a frozen graph."""
    from dataclasses import replace

    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    path = folder / "frozen.pb"
    path.write_bytes(content)
    manifest = replace(_manifest(seeds()[0], folder), checkpoint=Checkpoint(path, "frozen-graph", None, {}))
    TensorFlowVerifier(manifest).distances_and_gradients(np.float32(_CROPS / 255), np.zeros((2, SIZE), np.float32))


def _onnx_mutant(generator: np.random.Generator) -> bytes:
    rng = _random(generator)
    return mutator(rng.choice(seeds()), onnx.ModelProto)(rng)


def _frozen_mutant(generator: np.random.Generator) -> bytes:
    from tensorflow.core.framework import graph_pb2

    return mutator(frozen_seed(), graph_pb2.GraphDef)(_random(generator))


def _random(generator: np.random.Generator) -> random.Random:
    """The mutators choose among lists of messages, which NumPy would turn into arrays."""
    return random.Random(int(generator.integers(1 << 62)))


TARGETS: list[Target] = [
    ("verifier load", _onnx_mutant, load_verifier),
    ("harden", _onnx_mutant, harden),
    ("harden with a detector", _onnx_mutant, detect),
    ("quantize", _onnx_mutant, quantize),
    ("gradients", _onnx_mutant, gradients),
    ("frozen graph", _frozen_mutant, frozen),
    ("frozen graph gradients", _frozen_mutant, frozen_gradients),
]
