"""Turn a trained facenet-robust into what is shipped: weights, threshold, manifest, ONNX file and card.

python models/facenet-robust/ship.py --lfw LFW --work build/facenet-robust
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from shipping import EMBEDDING_SIZE, WIDTH, asked, ship_verifier
from train import SIDE

from toolkit.networks.inception_resnet_v1 import inception_resnet_v1

CARD = """\
# facenet-robust

The network of facenet-mini ({parameters:,} parameters, width {width}, {size}-D) on crops of {side} x {side} pixels,
fine-tuned on attacked crops. It is for **reference and tests**: it shows what adversarial training alone does for a
verifier, without any preprocessing, noise or vote. It is not fit to decide about people.

## How it was made

`train.py` began with the shipped weights of facenet-mini. Each step attacked 48 of {faces:,} faces (LFW sets 1-6, and
face chips without names: UTKFace, for non-commercial research) by the network's own gradients, in L2 balls of up to
RMS 2.7/255: one step of the attack at first, two in the last 40 % of the time. It then trained the embeddings of the
attacked crops towards those that dlib's ResNet-29 (CC0) gives to the clean ones. No identity label is used.
{minutes:.0f} minutes on two busy CPU cores, {steps:,} steps.

`ship.py` rounded the weights to float16, chose the threshold on the pairs of LFW sets 1-6, exported the ONNX file and
measured what follows. The people of sets 1-6 were seen in training: only the last column is a measure of quality.

## Clean verification

{rows}

Intervals are 95 % Wilson intervals.

    sixpixels evaluate facenet-robust --pairs LFW --folds 7,8

## Before an attacker

[What is left of it before an attacker who knows everything](../../docs/smoothing.md#the-table), beside other verifiers
and profiles. It has no certificate: a stronger attack may get more.

## Limits

Trained on few people, many of them public figures of the early 2000s; error rates differ between groups of people and
were not measured by group. It must not be used to identify, admit, refuse or watch anybody.
"""


def main() -> None:
    lfw, work, state = asked(__doc__)
    shipped = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, SIDE, folded=True)
    shipped.load_weights(work / "average.weights.h5")
    ship_verifier(HERE, shipped, SIDE, "fine-tuned on attacked crops by train.py", CARD, state, lfw)


if __name__ == "__main__":
    main()
