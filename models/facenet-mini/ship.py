"""Turn a trained facenet-mini into what is shipped: weights, threshold, manifest, ONNX file and card.

python models/facenet-mini/ship.py --lfw LFW --work build/facenet-mini
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from train import EMBEDDING_SIZE, WIDTH
from training_faces import TEMPLATE_150

from toolkit.audit.clean.evaluate import evaluate
from toolkit.audit.clean.run import run_clean
from toolkit.export.onnx_export import export_onnx
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.files import sha256
from toolkit.networks.folding import fold
from toolkit.networks.inception_resnet_v1 import inception_resnet_v1
from toolkit.networks.weights import save_weights
from toolkit.report.terminal import percent
from toolkit.statistics.verification import best_threshold
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier

SIDE = 160
TEMPLATE = np.round(TEMPLATE_150 * SIDE / 150, 2)

MANIFEST = """\
schema = 1
name = "facenet-mini"

[model]
file = "facenet-mini.onnx"
{model_hash}license = "MIT"
provenance = "Inception-ResNet-v1 at width {width}, distilled by train.py in this folder; see CARD.md"

[checkpoint]
file = "facenet-mini.weights.h5"
format = "keras-weights"
sha256 = "{checkpoint}"

[checkpoint.network]
name = "inception_resnet_v1"
embedding_size = {size}
width = {width}
folded = true

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

CARD = """\
# facenet-mini

An Inception-ResNet-v1 ({parameters:,} parameters, width {width}, {size}-D, 160 x 160 crops) for **reference and
tests**: it lets an audit run from end to end on any machine. It is not fit to decide about people.

## How it was made

`train.py` distilled dlib's ResNet-29 (CC0) on {faces:,} faces: those of LFW sets 1-6 and face chips without names
(UTKFace, for non-commercial research). The student learns the teacher's embedding, less its mean, of the same
randomly placed, mirrored and blended crops; no identity label is used. {minutes:.0f} minutes on two busy CPU cores,
{steps:,} steps of 64 crops.

`ship.py` folded the normalizations into the convolutions, rounded the weights to float16, chose the threshold on the
pairs of LFW sets 1-6, exported the ONNX file and measured what follows. The people of sets 1-6 were seen in training:
only the last column is a measure of quality.

## Clean verification

| | LFW sets 1-6 (trained on) | LFW sets 7-8 (never trained on) |
| --- | --- | --- |
{rows}

Intervals are 95 % Wilson intervals. Settings of the training were chosen while looking at sets 7-8.

    sixpixels evaluate facenet-mini --pairs LFW --folds 7,8

## Limits

Trained on few people, many of them public figures of the early 2000s; error rates differ between groups of people and
were not measured by group. It must not be used to identify, admit, refuse or watch anybody.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()

    state = json.loads((args.work / "state.json").read_text())
    trained = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, input_side=None)
    trained.load_weights(args.work / "average.weights.h5")
    shipped = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, SIDE, folded=True)
    fold(trained, shipped)
    weights = HERE / "facenet-mini.weights.h5"
    save_weights(shipped, weights, half=True)

    path = HERE / "model.toml"

    def describe(threshold: float, model_hash: str) -> None:
        path.write_text(
            MANIFEST.format(
                model_hash=model_hash,
                checkpoint=sha256(weights),
                width=WIDTH,
                size=EMBEDDING_SIZE,
                side=SIDE,
                threshold=threshold,
                template=TEMPLATE.tolist(),
            )
        )

    describe(1.0, "")
    onnx = HERE / "facenet-mini.onnx"
    export_onnx(read_manifest(path), onnx)
    digest = sha256(onnx)

    sets = [load_pairs(args.lfw, folds=folds) for folds in (range(1, 7), (7, 8))]
    crops = [crop_pairs(pairs, SIDE, SIDE, tuple(map(tuple, TEMPLATE.tolist()))) for pairs in sets]
    verifier = RuntimeVerifier(read_manifest(path))
    clean = run_clean(verifier, crops[0], verifier.manifest.decision)
    genuine = np.array([pair.genuine for pair in crops[0].pairs])
    describe(round(best_threshold(clean.distances, genuine), 4), f'sha256 = "{digest}"\n')
    export_onnx(read_manifest(path), onnx)  # once more, with the final manifest inside
    verifier = RuntimeVerifier(read_manifest(path))
    results = [evaluate(verifier, c, pairs.source, 0) for c, pairs in zip(crops, sets, strict=True)]

    def row(name: str, values: list[str]) -> str:
        return f"| {name} | " + " | ".join(values) + " |"

    def at_fmr(result, target: float) -> str:
        point = dict(result.clean.at_fmr)[target]
        return "too few pairs" if point is None else f"{percent(point.fnmr)} %"

    rows = [
        row("pairs", [f"{r.genuine} + {r.impostor}" for r in results]),
        row(f"accuracy at {results[0].threshold:g}", [f"{percent(r.clean.accuracy)} %" for r in results]),
        row("FNMR", [f"{percent(r.clean.fnmr)} %" for r in results]),
        row("FMR", [f"{percent(r.clean.fmr)} %" for r in results]),
        row("EER", [f"{100 * (r.clean.eer or 0.0):.2f} %" for r in results]),
        row("FNMR at FMR 1e-2", [at_fmr(r, 1e-2) for r in results]),
        row("FNMR at FMR 1e-3", [at_fmr(r, 1e-3) for r in results]),
        row("left out (no face found)", [str(len(r.left_out)) for r in results]),
    ]
    card = CARD.format(
        parameters=shipped.count_params(),
        width=WIDTH,
        size=EMBEDDING_SIZE,
        faces=state["faces"],
        minutes=state["minutes"],
        steps=state["step"],
        rows="\n".join(rows),
    )
    (HERE / "CARD.md").write_text(card)
    print(card)


if __name__ == "__main__":
    main()
