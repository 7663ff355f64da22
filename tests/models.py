"""Small verifiers whose behavior is known exactly, as files and as objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import distances

MANIFEST = """\
schema = 1
name = "{name}"
[model]
file = "{name}.onnx"
license = "MIT"
provenance = "made by a test"
[input]
name = "input"
height = {side}
width = {side}
layout = "{layout}"
channels = "{channels}"
range = {range}
mean = {mean}
std = {std}
[output]
name = "embedding"
size = {size}
normalize = false
[decision]
metric = "{metric}"
threshold = {threshold}
maximum = {maximum}
"""


def write_linear(
    folder: Path,
    *,
    weights: NDArray[np.float32],
    side: int,
    layout: str = "NHWC",
    channels: str = "RGB",
    metric: str = "euclidean",
    threshold: float = 1.0,
    name: str = "linear",
    batch: str | int = "batch",
    opaque: bool = False,
    **text: object,
) -> Path:
    """An ONNX file whose embedding is its flattened input times `weights` (H*W*3, D); returns its path.

    With `opaque`, an operator stands in it that has no translation to TensorFlow, so that there are no gradients.
    """
    shape = [batch, side, side, 3] if layout == "NHWC" else [batch, 3, side, side]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["product" if opaque else "embedding"]),
            *([helper.make_node("Einsum", ["product"], ["embedding"], equation="ij->ij")] if opaque else []),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    fields: dict[str, object] = {"range": [0, 1], "mean": 0.0, "std": 1.0, "maximum": 4.0 * threshold, **text}
    path.with_suffix(".toml").write_text(
        MANIFEST.format(
            name=name,
            side=side,
            layout=layout,
            channels=channels,
            size=weights.shape[1],
            metric=metric,
            threshold=threshold,
            **fields,
        )
    )
    return path


@dataclass(frozen=True)
class Linear:
    """Embedding = flattened crop times `weights` (H*W*3, D), with gradients, in NumPy."""

    weights: NDArray[np.float64]
    decision: Decision

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        return (crops.reshape(len(crops), -1).astype(np.float64) @ self.weights).astype(np.float32)

    def compare(self, embeddings: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        return distances(self.decision.metric, embeddings, references)

    def distances(self, crops: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.distances_and_gradients(crops, references)[0]

    def distances_and_gradients(
        self, crops: NDArray[np.float32], references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        difference = crops.reshape(len(crops), -1).astype(np.float64) @ self.weights - references
        d = distances(self.decision.metric, difference, np.zeros_like(difference))
        outer = 2 * difference if self.decision.metric == "squared-euclidean" else difference / d[:, None]
        return d, (outer @ self.weights.T).reshape(crops.shape).astype(np.float32)


def checker_node(model: bytes) -> onnx.ModelProto:
    """Parse and fully check a model."""
    proto = onnx.load_model_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_people(folder: Path, side: int = 16, photos: int = 9) -> Path:
    """An audit's input: three people who differ in brightness, their pairs, and a verifier that sees brightness.

    It sees fine structure as well, so that noise has something to find. Returns the verifier's path; pairs.csv beside
    it has 3 * (photos - 1) genuine and 2 * photos impostor pairs.
    """
    rng = np.random.default_rng(0)
    lines = []
    for person, level in (("a", 60), ("b", 120), ("c", 190)):
        (folder / person).mkdir(parents=True, exist_ok=True)
        for i in range(photos):
            image = np.clip(rng.normal(level, 6, (side, side, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / person / f"{i}.png"), image)
    for person in "abc":
        lines += [f"{person}/{i}.png,{person}/{i + 1}.png,same" for i in range(photos - 1)]
    lines += [f"a/{i}.png,{other}/{i}.png,different" for i in range(photos) for other in "bc"]
    (folder / "pairs.csv").write_text("\n".join(lines))
    values = side * side * 3
    bright, fine = np.full(values, 1 / values), rng.choice([-1, 1], values) / values * 12
    return write_linear(folder, weights=np.stack([bright, fine], 1), side=side, threshold=0.12)
