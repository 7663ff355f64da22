"""Turn a trained verifier into what is shipped: weights, threshold, manifest, ONNX file, and measures for its card."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from training_faces import TEMPLATE_150

from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import run_clean
from toolkit.audit.evaluate import evaluate
from toolkit.export.onnx_export import export_onnx
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.files import sha256
from toolkit.networks.weights import save_weights
from toolkit.report.terminal import percent
from toolkit.statistics.verification import best_threshold
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier

if TYPE_CHECKING:
    import keras

EMBEDDING_SIZE, WIDTH = 128, 0.375

_MANIFEST = """\
schema = 1
name = "{name}"

[model]
file = "{name}.onnx"
{model_hash}license = "MIT"
provenance = "Inception-ResNet-v1 at width {width}, {made} in this folder; see CARD.md"

[checkpoint]
file = "{name}.weights.h5"
format = "keras-weights"
sha256 = "{checkpoint}"

[checkpoint.network]
name = "inception_resnet_v1"
embedding_size = {size}
width = {width}
folded = true{more}

[input]
name = "input"
height = {side}
width = {side}
layout = "NHWC"
channels = "RGB"
range = [0, 255]
mean = 127.5
std = 128.0

[output]
name = "embedding"
size = {size}
normalize = true

[decision]
metric = "squared-euclidean"
threshold = {threshold}
maximum = 4.0

[alignment]
template = {template}
"""


def asked(doc: str | None) -> tuple[Path, Path, dict[str, Any]]:
    """Read the options of a shipping script: the folders of LFW and of the training, and how far the training came."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    return args.lfw, args.work, json.loads((args.work / "state.json").read_text())


def ship_verifier(
    folder: Path,
    network: keras.Model,
    side: int,
    made: str,
    card: str,
    state: dict[str, Any],
    lfw: Path,
    averaged: int = 1,
) -> None:
    """Write a verifier into its folder, measure it, and write its card.

    Args:
        folder: the folder; its name is the verifier's.
        network: the folded network at its input side. Its weights are rounded to half precision.
        side: the side of a crop in pixels.
        made: how it was made, in words.
        card: the text of its card, with places for what is measured.
        state: how far the training came, from its work folder.
        lfw: the folder of LFW. The threshold is chosen on sets 1-6.
        averaged: see `inception_resnet_v1`.
    """
    weights = folder / f"{folder.name}.weights.h5"
    save_weights(network, weights, half=True)

    def manifest(threshold: float, model_hash: str) -> str:
        return _MANIFEST.format(
            name=folder.name,
            made=made,
            model_hash=model_hash,
            checkpoint=sha256(weights),
            width=WIDTH,
            size=EMBEDDING_SIZE,
            side=side,
            more=f"\naveraged = {averaged}" if averaged > 1 else "",
            threshold=threshold,
            template=template_of(side).tolist(),
        )

    def export(onnx: Path) -> None:
        export_onnx(read_manifest(folder / "model.toml"), onnx)

    chosen_on = Chosen(range(1, 7), "LFW sets 1-6 (trained on)")
    fields = {"parameters": network.count_params(), "width": WIDTH, "size": EMBEDDING_SIZE, "side": side}
    describe_verifier(folder, manifest, export, side, chosen_on, card, fields, state, lfw)


@dataclass(frozen=True)
class Chosen:
    """The LFW sets that a threshold is chosen on, and what a card calls them."""

    folds: Sequence[int]
    name: str


def template_of(side: int) -> NDArray[np.float64]:
    """The positions of the landmarks in a crop."""
    return np.round(TEMPLATE_150 * side / 150, 2)


def describe_verifier(
    folder: Path,
    manifest: Callable[[float, str], str],
    export: Callable[[Path], None],
    side: int,
    chosen_on: Chosen,
    card: str,
    fields: dict[str, Any],
    state: dict[str, Any],
    lfw: Path,
) -> None:
    """Choose the threshold of a verifier, and write its manifest, its ONNX file and its card.

    Args:
        folder: see `ship_verifier`.
        manifest: function from a threshold and a line with the hash of the ONNX file to the text of the manifest.
        export: writes the ONNX file, when the manifest is there.
        side: see `ship_verifier`.
        chosen_on: the sets for the threshold.
        card: see `ship_verifier`.
        fields: what the card says beside what is measured.
        state, lfw: see `ship_verifier`.
    """
    path, onnx = folder / "model.toml", folder / f"{folder.name}.onnx"
    path.write_text(manifest(1.0, ""))
    export(onnx)
    digest = sha256(onnx)
    sets = [load_pairs(lfw, folds=folds) for folds in (chosen_on.folds, (7, 8))]
    crops = [crop_pairs(pairs, side, side, tuple(map(tuple, template_of(side).tolist()))) for pairs in sets]
    verifier = RuntimeVerifier(read_manifest(path))
    clean = run_clean(verifier, crops[0], verifier.manifest.decision)
    genuine = np.array([pair.genuine for pair in crops[0].pairs])
    threshold = round(best_threshold(clean.distances, genuine), 4)
    path.write_text(manifest(threshold, f'sha256 = "{digest}"\n'))
    export(onnx)  # once more, with the final manifest inside
    bench = Bench(read_manifest(path), Execution(), 0)
    results = [evaluate(bench, c, pairs.source) for c, pairs in zip(crops, sets, strict=True)]
    done = {"faces": state["faces"], "minutes": state["minutes"], "steps": state["step"]}
    rows = _table(results, [chosen_on.name, "LFW sets 7-8 (never trained on)"])
    filled = card.format(**fields, **done, rows=rows)
    (folder / "CARD.md").write_text(filled)
    print(filled)


def _table(results: list, names: list[str]) -> str:
    """The clean errors on two groups of sets, in Markdown."""

    def at_fmr(result, target: float) -> str:
        point = dict(result.clean.at_fmr)[target]
        return "too few pairs" if point is None else f"{percent(point.fnmr)} %"

    rows = [
        ("", names),
        ("---", ["---", "---"]),
        ("pairs", [f"{r.genuine} + {r.impostor}" for r in results]),
        (f"accuracy at {results[0].threshold:g}", [f"{percent(r.clean.accuracy)} %" for r in results]),
        ("FNMR", [f"{percent(r.clean.fnmr)} %" for r in results]),
        ("FMR", [f"{percent(r.clean.fmr)} %" for r in results]),
        ("EER", [f"{100 * (r.clean.eer or 0.0):.2f} %" for r in results]),
        ("FNMR at FMR 1e-2", [at_fmr(r, 1e-2) for r in results]),
        ("FNMR at FMR 1e-3", [at_fmr(r, 1e-3) for r in results]),
        ("left out (no face found)", [str(len(r.left_out)) for r in results]),
    ]
    return "\n".join(f"| {name} | {' | '.join(values)} |" for name, values in rows)
