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
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def embed(path: str) -> np.ndarray:
    """Return the raw embedding of one crop."""
    pixels = np.fromfile(path, np.uint8).reshape(1, spec["height"], spec["width"], 3).astype(np.float32) / 255
    (found,) = session.run([told["output"]["name"]], {spec["name"]: pixels.transpose(0, 3, 1, 2)})
    return found[0].astype(np.float64)


probe, reference = (embed(path) for path in crops)
length = np.linalg.norm(probe)
angle = np.arccos(np.clip(probe @ reference / length / np.linalg.norm(reference), -1, 1))
limit = 2 * np.arcsin(threshold**0.5 / 2)
print("decision", "same" if angle < limit else "different")
print(f"radius {length * np.sin(min(abs(angle - limit), np.pi / 2)) / bound:.6f}")
