"""Export a checkpoint, and compare it with the original on every execution provider that works on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import UnavailableError
from toolkit.export.onnx_export import ExportResult, export_onnx
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import PairSet, find_pairs
from toolkit.faces.rows import Rows
from toolkit.progress import SILENT, Progress
from toolkit.verifiers.crops import Scoring, crop_for, embed_crops, gather_embedded, temporary_folder
from toolkit.verifiers.manifest import Manifest, find_manifest, read_manifest
from toolkit.verifiers.parity import Parity, compare
from toolkit.verifiers.runtime import Execution, RuntimeVerifier

# Without real crops, the comparison uses noise. It reveals a wrong graph, but not flipped decisions.
_NOISE_CROPS = 8


@dataclass(frozen=True)
class ExportReport:
    """The written files, and a comparison with the original on each working provider.

    `real_crops` is False if the comparison used noise.
    """

    result: ExportResult
    parities: tuple[Parity, ...]
    real_crops: bool


def run_export(manifest: Manifest, output: Path, crops: CropSet | None, opset: int) -> ExportReport:
    """Export the checkpoint of `manifest` to `output`, and compare it with the original.

    Args:
        manifest: the verifier.
        output: the .onnx file to write.
        crops: the crops to compare on; None uses noise.
        opset: the ONNX operator set.

    Raises:
        SixpixelsError: the checkpoint cannot be loaded or exported, or the file cannot be written.
    """
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    result = export_onnx(manifest, output, opset)
    exported = read_manifest(output)
    images: NDArray[np.uint8] | Rows
    if crops is not None:
        images, index = crops.images, crops.index
    else:
        shape = (_NOISE_CROPS, manifest.input.height, manifest.input.width, 3)
        images, index = np.random.default_rng(0).integers(0, 256, shape, np.uint8), np.empty((0, 2), np.intp)
    original = _embeddings(TensorFlowVerifier(manifest), images)
    parities = []
    for provider in onnxruntime.get_available_providers():
        try:
            execution = Execution(provider, provider)
            verifier = RuntimeVerifier(exported, execution=execution)
        except UnavailableError:
            continue  # listed by ONNX Runtime, but not working on this machine
        deployed = _embeddings(verifier, images)
        parities.append(compare(deployed, original, index, manifest.decision, verifier.provider))
    return ExportReport(result, tuple(parities), crops is not None)


def _embeddings(verifier: Scoring, images: NDArray[np.uint8] | Rows) -> NDArray[np.float32] | Rows:
    return gather_embedded(embed_crops(verifier, images), temporary_folder())[0]


def export_verifier(
    model: str | Path | Manifest,
    output: str | Path,
    pairs: PairSet | Path | str | None = None,
    *,
    opset: int = 17,
    progress: Progress = SILENT,
) -> ExportReport:
    """Export a model's original checkpoint to ONNX, and compare the two on every provider of this machine.

    Args:
        model: a shipped model's name, a `model.toml`, or a manifest; it must name a checkpoint.
        output: the .onnx file to write.
        pairs: real pairs, to compare embeddings and decisions. None compares embeddings of noise only.
        opset: the ONNX operator set, 13 to 18.
        progress: shows how many faces are aligned.

    Raises:
        SixpixelsError: the checkpoint cannot be loaded or exported, or the file cannot be written.
    """
    manifest = find_manifest(model)
    crops = None if pairs is None else crop_for(manifest, find_pairs(pairs), progress)
    return run_export(manifest, Path(output), crops, opset)
