"""Export of a denoiser's Keras weights to ONNX, for any batch size and image size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.defenses.denoiser import DenoiserManifest, tensorflow_denoiser
from toolkit.errors import InputError
from toolkit.export.onnx_export import convert
from toolkit.files import sha256, write_bytes
from toolkit.quiet import import_tensorflow

# Batch size, height and width of the images for the parity check: a common crop size, odd sides, and a single row.
_CHECKED = ((4, 160, 160), (2, 75, 131), (1, 1, 40))


@dataclass(frozen=True)
class DenoiserExport:
    """The written file, and its largest absolute difference from TensorFlow on images in [0, 1]."""

    path: Path
    sha256: str
    largest_difference: float


def export_denoiser(manifest: DenoiserManifest, output: Path, opset: int = 17) -> DenoiserExport:
    """Export the weights that `manifest` names to an ONNX file.

    The file maps crops float32 (N, 3, H, W), RGB in [0, 1], to denoised crops of the same shape.

    Raises:
        InputError: the weights cannot be loaded or converted, or the output cannot be written.
        UnavailableError: TensorFlow or tf2onnx is not installed.
    """
    if output.suffix != ".onnx":
        raise InputError(f"{output}: the name of an exported model must end in .onnx")
    tf = import_tensorflow()
    denoise = tensorflow_denoiser(manifest)
    signature = [tf.TensorSpec((None, None, None, 3), tf.float32, name="input")]

    @tf.function(input_signature=signature, autograph=False)
    def exported(x: Any) -> Any:
        return {"output": denoise(x)}

    origin = {
        "sixpixels.denoiser": manifest.path.read_text(encoding="utf-8"),
        "sixpixels.checkpoint_sha256": sha256(manifest.weights),
    }
    write_bytes(output, convert(exported, signature, opset, origin, manifest.weights, channels_first=True))
    return DenoiserExport(output, sha256(output), _largest_difference(denoise, output))


def _largest_difference(denoise: Any, path: Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    largest = 0.0
    for shape in _CHECKED:
        images = rng.random((*shape, 3), np.float32)
        deployed = session.run(None, {"input": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})[0]
        largest = max(largest, float(np.abs(deployed.transpose(0, 2, 3, 1) - denoise(images)).max()))
    return largest
