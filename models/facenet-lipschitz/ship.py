"""Turn a trained facenet-lipschitz into what is shipped: ONNX file, Lipschitz bound, threshold, manifest and card.

python models/facenet-lipschitz/ship.py --lfw LFW --work build/facenet-lipschitz
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from lipschitz_network import EMBEDDING_SIZE, SIDE, lipschitz_network, write_onnx
from shipping import Chosen, asked, describe_verifier, template_of
from train import HELD_OUT

from toolkit.verifiers.lipschitz import lipschitz_bound
from toolkit.verifiers.manifest import read_manifest

MANIFEST = """\
schema = 1
name = "{name}"

[model]
file = "{name}.onnx"
{model_hash}license = "MIT"
provenance = "almost orthogonal layers, trained by train.py in this folder; see CARD.md"

[input]
name = "input"
height = {side}
width = {side}
layout = "NCHW"
channels = "RGB"
range = [0, 1]
mean = 0.0
std = 1.0

[output]
name = "embedding"
size = {size}
normalize = true
{lipschitz}
[decision]
metric = "squared-euclidean"
threshold = {threshold}
maximum = 4.0

[alignment]
template = {template}
"""

CARD = """\
# facenet-lipschitz

A verifier whose raw embedding never moves further than {bound:.4f} times the crop does, in L2 ({parameters:,}
parameters, {size}-D, crops of {side} x {side} pixels, of which it sees averages of 4 x 4). So every decision has a
certificate, from one run of a plain ONNX file, without noise, vote or confidence. It is for **reference and tests**,
and not fit to decide about people.

## The certificate

Let x be the raw embedding of the probe, n its length, a the angle between x and the reference, and t the angle of the
threshold. No change of the crop, with pixels in [0, 1], that is shorter in L2 than

    n * sin(|a - t|) / {bound:.4f}        (|a - t| counts at most as a right angle)

changes the decision. The bound is the product of the largest singular values of the layers. An audit computes it anew
from the file, and refuses the manifest if the file is steeper.

## How it was made

`train.py` trained it from orthogonal matrices on {faces:,} faces (LFW sets 1-5, and face chips without names: UTKFace,
for non-commercial research): to make the signed radius above large on pairs of photographs, of which those of LFW have
names, and to turn embeddings towards those of dlib's ResNet-29 (CC0). {minutes:.0f} minutes on two busy CPU cores,
{steps:,} steps.

`ship.py` wrote the rescaled kernels as an ONNX file, chose the threshold on the pairs of LFW set 6, whose people no
step saw, and measured what follows. The state of training was watched on set 6, so only the last column is untouched.

## Clean verification

{rows}

Intervals are 95 % Wilson intervals.

    sixpixels evaluate facenet-lipschitz --pairs LFW --folds 7,8

## Before an attacker

[What it certifies, and what is left of it before an attacker who knows everything](../../docs/smoothing.md#the-table).

## Limits

Trained on few people, many of them public figures of the early 2000s; error rates differ between groups of people and
were not measured by group. It must not be used to identify, admit, refuse or watch anybody.
"""


def main() -> None:
    lfw, work, state = asked(__doc__)
    network = lipschitz_network()
    network.load_weights(work / "average.weights.h5")
    bounds: list[float] = []

    def manifest(threshold: float, model_hash: str) -> str:
        return MANIFEST.format(
            name=HERE.name,
            model_hash=model_hash,
            side=SIDE,
            size=EMBEDDING_SIZE,
            lipschitz=f"lipschitz = {bounds[0]}\n" if bounds else "",
            threshold=threshold,
            template=template_of(SIDE).tolist(),
        )

    def export(onnx: Path) -> None:
        write_onnx(network, onnx)
        found = lipschitz_bound(onnx.read_bytes(), read_manifest(HERE / "model.toml"))
        bounds[:] = [math.ceil(found * 1e4) / 1e4]

    (HERE / "model.toml").write_text(manifest(1.0, ""))
    export(HERE / f"{HERE.name}.onnx")
    fields = {"parameters": network.count_params(), "size": EMBEDDING_SIZE, "side": SIDE, "bound": bounds[0]}
    chosen_on = Chosen((HELD_OUT,), f"LFW set {HELD_OUT} (not trained on)")
    describe_verifier(HERE, manifest, export, SIDE, chosen_on, CARD, fields, state, lfw)


if __name__ == "__main__":
    main()
