"""Decide about two faces with a verifier that has a Lipschitz bound. It needs numpy and onnxruntime.

    python bounded.py facenet-lipschitz.onnx model.toml probe.rgb reference.rgb

The crops are raw bytes: height x width x 3, RGB, aligned as the manifest says.
"""

import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime

model, manifest, *crops = sys.argv[1:5]
told = tomllib.loads(Path(manifest).read_text())
spec, bound, threshold = told["input"], told["output"]["lipschitz"], told["decision"]["threshold"]
if told["decision"]["metric"] != "squared-euclidean" or not told["output"]["normalize"]:
    sys.exit("this certificate is about squared distances of embeddings of unit length")
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def embed(path: str) -> np.ndarray:
    """Return the raw embedding of one crop."""
    pixels = np.fromfile(path, np.uint8).reshape(1, spec["height"], spec["width"], 3).astype(np.float32)
    low, high = spec["range"]
    x = (low + pixels / 255 * (high - low) - np.float32(spec["mean"])) / np.float32(spec["std"])
    x = x if spec["layout"] == "NHWC" else x.transpose(0, 3, 1, 2)
    (found,) = session.run([told["output"]["name"]], {spec["name"]: x})
    return found[0].astype(np.float64)


probe, reference = (embed(path) for path in crops)
length = np.linalg.norm(probe)
angle = np.arccos(np.clip(probe @ reference / length / np.linalg.norm(reference), -1, 1))
limit = 2 * np.arcsin(threshold**0.5 / 2)
print("decision", "same" if angle < limit else "different")
print(f"radius {length * np.sin(min(abs(angle - limit), np.pi / 2)) / bound:.6f}")
