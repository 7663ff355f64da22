"""Decide about two faces with a smoothed verifier, and read its certificate. It needs onnxruntime, numpy and scipy.

    python verify.py smoothed.onnx smoothed.toml probe.rgb reference.rgb [calls]

The crops are raw bytes: height x width x 3, RGB, aligned as the manifest says. More calls draw more noise, so that the
radius grows.
"""

import secrets
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
from scipy.stats import beta, norm

model, manifest, probe, reference, calls = (*sys.argv[1:5], int((*sys.argv[5:], 1)[0]))
told = tomllib.loads(Path(manifest).read_text())
spec, vote, size, threshold = told["input"], told["vote"], told["output"]["size"], told["decision"]["threshold"]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def crop(path: str) -> np.ndarray:
    """Return the input tensor of one crop."""
    pixels = np.fromfile(path, np.uint8).reshape(1, spec["height"], spec["width"], 3).astype(np.float32)
    low, high = spec["range"]
    x = (low + pixels / 255 * (high - low) - np.float32(spec["mean"])) / np.float32(spec["std"])
    return x if spec["layout"] == "NHWC" else x.transpose(0, 3, 1, 2)


def run(outputs: list[str], path: str, **inputs: np.ndarray) -> list[np.ndarray]:
    """Run the file on one crop with new noise."""
    # The noise must not be known to an attacker, so that it comes from the operating system.
    entropy = np.array([secrets.randbelow(2**62)])
    floats = {name: value.astype(np.float32) for name, value in inputs.items()}
    return session.run(outputs, {spec["name"]: crop(path), "sixpixels_entropy": entropy, **floats})


# Enroll once, without a reference and a threshold, and keep this embedding.
nothing = {"sixpixels_reference": np.full((1, size), np.nan), "sixpixels_threshold": np.array([np.nan])}
(enrolled,) = run([told["output"]["name"]], reference, **nothing)
asked = {"sixpixels_reference": enrolled, "sixpixels_threshold": np.array([threshold])}
votes = 0
for _ in range(calls):
    counted, same, radius = run(["smoothed_votes", "smoothed_same", "smoothed_radius"], probe, **asked)
    votes += int(counted[0])

# The same certificate from the votes alone, over all calls (Cohen et al. 2019; Clopper and Pearson 1934).
draws = calls * vote["draws"]
most, one_sided = max(votes, draws - votes), (1 + vote["confidence"]) / 2
bound = beta.ppf(1 - one_sided, most, draws - most + 1)
certain = bound > 0.5
print("votes", votes, "of", draws)
print("decision", ("same" if 2 * votes > draws else "different") if certain else "abstains")
print(f"radius {vote['sigma'] * norm.ppf(bound) if certain else 0:.6f}")
if calls == 1:
    print(f"in the file {same[0]} {radius[0]:.6f}")
