"""An export and its parity, on every provider that this machine really has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from toolkit.attacks.base import to_unit
from toolkit.errors import UnavailableError
from toolkit.export.onnx_export import ExportResult, export_onnx
from toolkit.export.parity import Parity, compare
from toolkit.faces.crops import CropSet
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier

# Without real crops, noise still shows a wrong graph, though it cannot show a flipped decision.
_NOISE_CROPS = 8


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with the original on each working provider."""

    result: ExportResult
    parities: tuple[Parity, ...]
    real_crops: bool


def run_export(manifest: Manifest, output: Path, crops: CropSet | None, opset: int) -> ExportReport:
    """Export `manifest`'s checkpoint to `output` and compare it with the original.

    Raises:
        SixpixelsError: the checkpoint cannot be loaded or exported, or the file cannot be written.
    """
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    result = export_onnx(manifest, output, opset)
    exported = read_manifest(output)
    if crops is not None:
        images, index = to_unit(crops.images[:]), crops.index
    else:
        shape = (_NOISE_CROPS, manifest.input.height, manifest.input.width, 3)
        images, index = np.random.default_rng(0).random(shape, np.float32), np.empty((0, 2), np.intp)
    original = TensorFlowVerifier(manifest).embed(images)
    parities = []
    for provider in onnxruntime.get_available_providers():
        try:
            execution = Execution(provider, provider)
            verifier = RuntimeVerifier(exported, execution=execution)
        except UnavailableError:
            continue  # listed by ONNX Runtime, but not working on this machine
        parities.append(compare(verifier.embed(images), original, index, manifest.decision, verifier.provider))
    return ExportReport(result, tuple(parities), crops is not None)
